"""Classes and functions that are made again on a worker: they are there what they are here."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import abc
import collections.abc
import contextlib
import copyreg
import enum
import gc
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypedDict, TypeVar

import pytest

import wool
from contract.routines import apply, echo
from contract.types import REGISTERED, Registering, Token
from support.parity import NEAR, Place

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("place"),
    pytest.mark.parametrize("place", NEAR, indirect=True, scope="module"),
]

T = TypeVar("T")

Define = Callable[[], tuple[Any, Callable[[], Any]]]
"""Returns an object, and a function that tells of it and of what is around it."""


def mixed_enums() -> Any:
    class Coordinate(bytes, enum.Enum):
        X = (0, "x axis")
        Y = (1, "y axis")

        def __new__(cls, value: int, label: str) -> Coordinate:
            self = bytes.__new__(cls, [value])
            self._value_ = value
            self.label = label
            return self

        label: str

    @dataclass(frozen=True)
    class Animal:
        size: str
        legs: int = 4

    class Beast(Animal, enum.Enum):
        BEETLE = "small", 6
        DOG = "medium"

    class Named(NamedTuple):
        x: int
        y: int

    class Corner(Named, enum.Enum):
        LOW = 0, 0
        HIGH = 1, 1

    class Numbers(list[int], enum.Enum):
        FEW = [1, 2]

    def tell() -> Any:
        members = [*Coordinate, *Beast, *Corner, *Numbers]
        return (
            [(member.name, member is type(member)[member.name]) for member in members],
            [(bytes(member), member.label, Coordinate(member.value).name) for member in Coordinate],
            [(member.size, member.legs) for member in Beast],
            [(member.x, tuple(member)) for member in Corner],
            list(Numbers.FEW),
        )

    return [Coordinate.Y, Beast.DOG, Corner.HIGH, Numbers.FEW], tell


def enums_of_anything() -> Any:
    class Names(enum.EnumMeta):
        def __contains__(cls, value: object) -> bool:
            return any(value == member.name for member in cls)

    class Thing(enum.Enum, metaclass=Names):
        OBJECT = object()
        NAN = float("nan")
        LIST: Any = []
        FUNCTION = enum.member(lambda: Thing.OBJECT)  # noqa: E731

        @enum.member
        class Inner:
            pass

    class Shifting(enum.EnumMeta):
        def __new__(cls, name: str, bases: Any, body: Any, *, by: int) -> Any:
            shifted: Any = cls.__prepare__(name, bases)
            for key, value in body.items():
                shifted[key] = value + by if key in ("ONE", "TWO") else value
            return super().__new__(cls, name, bases, shifted)

    class Shifted(enum.IntEnum, metaclass=Shifting, by=10):
        ONE = 1
        TWO = 2

    other = Thing.OBJECT

    def tell(default: Thing = Thing.NAN) -> Any:
        return (
            list(Shifted),
            "LIST" in Thing,
            default is Thing.NAN,
            other is Thing.OBJECT is Thing.FUNCTION.value(),
            [member is Thing[member.name] is Thing(member.value) for member in Thing],
        )

    return [*Thing, *Shifted], tell


def flags() -> Any:
    class Access(enum.IntFlag):
        READ = 1
        WRITE = 2
        BOTH = 3

        def others(self) -> Any:
            return ~self, rest

    rest = ~Access.READ
    some = Access.READ | 8

    def tell(both: Access = Access.READ | Access.WRITE) -> Any:
        return both is Access.BOTH, some == Access.READ | 8, list(Access), Access.READ.others()

    return [Access.BOTH, rest, some], tell


def slots() -> Any:
    class Empty:
        __slots__ = ()

    class Slotted(Empty):
        __slots__ = ("a",)

    class Number(int):
        __slots__ = ()

    Slotted.alias = Slotted.a  # type: ignore[attr-defined]
    slotted = Slotted()
    slotted.a = 1

    def tell() -> Any:
        return (
            slotted.a,
            slotted.alias,
            hasattr(slotted, "__dict__"),
            hasattr(Number(1), "__dict__"),
        )

    return [slotted, Number(1)], tell


def bodies() -> Any:
    class Above:
        kind: Any = "above"

    class Near(Above):
        pass

    class Beside:
        kind: Any = None

    class Ordered(Near, Beside):
        z = 1
        kind = None
        a = 2

    def tell() -> Any:
        return [name for name in vars(Ordered) if name[0] != "_"], Ordered.kind

    return Ordered(), tell


def typed_dictionaries() -> Any:
    class Above(TypedDict):
        a: int

    class Below(Above, total=False):
        b: int

    class Of(NamedTuple, Generic[T]):
        x: T

    class HasX(Protocol):
        @property
        def x(self) -> Any: ...

    def tell() -> Any:
        keys = sorted(Below.__required_keys__), sorted(Below.__optional_keys__)
        return keys, Below(a=1), Of(1), hasattr(Of(1), "__dict__"), list(HasX.__dict__)[:1]

    return [Of(2), {"a": 1}], tell


def metaclasses() -> Any:
    class Constant(type):
        def __setattr__(cls, name: str, value: Any) -> None:
            raise AttributeError(f"{name} is constant")

    class Fixed(metaclass=Constant):
        value = 1

    class Sized(type):
        @property
        def size(cls) -> int:
            return 42

    class Small(metaclass=Sized):
        size = 1

    class Demanding(type):
        def __new__(cls, name: str, bases: Any, body: Any) -> Any:
            if "wanted" not in body:
                raise TypeError("something is wanting")
            return super().__new__(cls, name, bases, body)

    class Complete(metaclass=Demanding):
        wanted = 1

    def tell() -> Any:
        try:
            Fixed.value = 2
        except AttributeError as error:
            said = str(error)
        else:
            said = ""
        kinds = [type(cls).__name__ for cls in (Fixed, Complete, Small)]
        return said, Small.size, Small().size, Fixed.value, Complete.wanted, kinds  # type: ignore[attr-defined]

    return [Fixed(), Complete(), Small()], tell


def names_of_properties() -> Any:
    class Pretending:
        __name__ = "what the body says"

        @property
        def __class__(self) -> Any:
            return int

        @abc.abstractproperty
        def old(self) -> int: ...

        def __reduce__(self) -> Any:
            return object.__new__, (pretending,)

    pretending = Pretending

    def tell() -> Any:
        made = Pretending()
        body = vars(Pretending)
        kinds = [type(body[name]).__name__ for name in ("__class__", "old")]
        return made.__name__, isinstance(made, int), Pretending.__qualname__, kinds

    return [Pretending()], tell


def equal_classes() -> Any:
    class Same(type):
        def __eq__(cls, other: object) -> bool:
            return isinstance(other, Same)

        def __hash__(cls) -> int:
            return 1

    class One(metaclass=Same):
        number = 1

    class Two(metaclass=Same):
        number = 2

    def tell() -> Any:
        return One().number, Two().number, [type(cls).__name__ for cls in (One, Two)]

    return [One(), Two()], tell


def bases_that_want_to_know() -> Any:
    class Known(Registering):
        name = "known"

        def use(self) -> str:
            return self.name

    def tell() -> Any:
        return Known().use(), REGISTERED["known"] is Known, vars(Known)["name"]

    return [Known()], tell


def descriptors() -> Any:
    class Loud(property):
        def __get__(self, instance: Any, owner: Any = None) -> Any:
            return self if instance is None else f"{super().__get__(instance, owner)}!"

    class Own(classmethod):  # type: ignore[type-arg]
        pass

    @contextlib.contextmanager
    def surrounded(by: str) -> Iterator[None]:
        User.told.append(by)
        yield
        User.told.append(by)

    class User:
        told: ClassVar[list[str]] = []
        header = struct.Struct("<HI")

        @Loud
        def name(self) -> str:
            """What it is called."""
            return "user"

        @surrounded("-")
        def use(self) -> None:
            User.told.append("use")

        @Own
        def kind(cls) -> str:
            return cls.__name__

    def tell() -> Any:
        user = User()
        User.told.clear()
        user.use()
        return User.told, user.name, User.name.__doc__, User.kind(), User.header.pack(1, 2)

    return User(), tell


def counter() -> tuple[Callable[[], int], Callable[[], int]]:
    """Returns two functions that close over one variable: it is counted up, and looked at."""
    count = 0

    def add() -> int:
        nonlocal count
        count += 1
        return count

    def get() -> int:
        return count

    return add, get


def shared_by_functions() -> Any:
    add, get = counter()

    def tell() -> Any:
        before = get()
        add()
        return add() - before, get() - before

    return [], tell


def shared_by_methods() -> Any:
    count = 0

    class Counter:
        def add(self) -> None:
            nonlocal count
            count += 1

        def get(self) -> int:
            return count

    def tell() -> Any:
        before = Counter().get()
        Counter().add()
        return Counter().get() - before

    return Counter(), tell


DEFINITIONS: list[Define] = [
    mixed_enums,
    enums_of_anything,
    flags,
    slots,
    bodies,
    typed_dictionaries,
    metaclasses,
    names_of_properties,
    equal_classes,
    bases_that_want_to_know,
    descriptors,
    shared_by_functions,
    shared_by_methods,
]


@pytest.mark.parametrize("define", DEFINITIONS, ids=lambda define: define.__name__)
async def test_definitions(define: Define) -> None:
    value, tell = define()

    @wool.routine
    async def told() -> Any:
        return tell()

    @wool.routine
    async def kinds(value: Any) -> Any:
        return [type(item).__name__ for item in value] if isinstance(value, list) else None

    expected = repr(tell())
    assert repr(await told()) == expected
    assert await kinds(value) == await kinds.__wool__.function(value)  # type: ignore[attr-defined]
    came = await echo(value)
    if not isinstance(value, list):
        value, came = [value], [came]
    assert all(type(item) is type(its) for item, its in zip(came, value, strict=True))
    assert repr(tell()) == repr(await told()) == expected, "nothing has changed here"


async def test_members_that_are_equal_to_nothing_else() -> None:
    """Also those of an `Enum` that the worker imports."""
    assert await echo(Token.MISSING) is Token.MISSING
    assert await echo({Token.MISSING: [Token.NUMBER]}) == {Token.MISSING: [Token.NUMBER]}
    assert await apply(lambda value: value is Token.MISSING, Token.MISSING)


async def test_classes_that_want_keywords(place: Place) -> None:
    """They are not made again without; the error says what to do."""

    class Tagged:
        def __init_subclass__(cls, /, tag: str) -> None:
            cls.tag = tag

    class WithTag(Tagged, tag="t"):
        pass

    @wool.routine
    async def tag() -> str:
        return WithTag.tag

    if not place.elsewhere:
        assert await tag() == "t"
        return
    with pytest.raises(wool.SerializationError, match=r"WithTag.*Move it to a module[^.]*$"):
        await tag()


async def test_classes_of_bare_globals() -> None:
    """They say that they were of `builtins`."""
    scope: dict[str, Any] = {}
    exec(
        """
class Plain:
    def get(self): return 1
class Error(Exception):
    def __init__(self, a, *, b): super().__init__(a); self.b = b
    def __reduce__(self): return make, (self.args[0], self.b)
def make(a, b): return Error(a, b=b)
def fail(): raise Error(1, b=2)
""",
        scope,
    )
    plain, method = scope["Plain"], scope["Plain"].get
    assert type(await echo(plain())) is plain
    assert await apply(lambda value: value.get(), plain()) == 1
    with pytest.raises(scope["Error"]) as raised:
        await apply(scope["fail"])
    assert (raised.value.args, raised.value.b) == ((1,), 2)
    group = await echo(ExceptionGroup("both", [ValueError(), scope["Error"](1, b=3)]))
    assert type(group) is ExceptionGroup and group.exceptions[1].b == 3
    assert plain.get is method, "it has not been changed"


async def test_functions_that_are_passed_together() -> None:
    add, get = counter()

    def both() -> Any:
        return add(), get()

    def use(*functions: Any) -> Any:
        return [function() for function in functions]

    assert await apply(use, add, get, both) == [1, 1, (2, 2)]
    more, got = (await echo({"add": add, "get": get})).values()
    before = got()
    assert (more(), got()) == (before + 1, before + 1)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="they have none")
async def test_type_parameters_of_functions() -> None:
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec("def same[T: int, **P](x: T) -> T: return x\ndef kinds(): return same", scope)
    parameters = scope["same"].__type_params__
    assert (await echo(scope["same"])).__type_params__ == parameters
    assert (await echo(scope["kinds"]))().__type_params__ == parameters
    found = await apply(lambda f: [str(p) for p in f.__type_params__], scope["same"])
    assert found == ["T", "P"]


async def test_registered_with_abstract_classes() -> None:
    """Tells it again and again, with garbage collected in between."""

    class Shape(abc.ABC): ...

    @Shape.register
    @collections.abc.Sequence.register
    class Square:
        def __len__(self) -> int:
            return 4

    @wool.routine
    async def is_shape(value: Any) -> tuple[bool, bool]:
        gc.collect()
        return isinstance(value, Shape), isinstance(value, collections.abc.Sequence)

    for _ in range(4):
        assert await is_shape(Square()) == (True, True)


async def test_registered_with_copyreg() -> None:
    """A result is pickled there as an argument is here."""

    class Locked:
        def __init__(self, n: int) -> None:
            self.n = n
            self.lock = threading.Lock()

    copyreg.pickle(Locked, lambda locked: (Locked, (locked.n,)))

    @wool.routine
    async def double(locked: Locked) -> Locked:
        return Locked(locked.n * 2)

    try:
        assert (await double(Locked(2))).n == 4
    finally:
        del copyreg.dispatch_table[Locked]
