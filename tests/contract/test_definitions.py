"""Classes and functions that are made again on a worker: they are there what they are here."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import enum
import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypedDict, TypeVar

import pytest

import wool
from contract.routines import echo
from support.parity import NEAR, Place

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("place"),
    pytest.mark.parametrize("place", NEAR, indirect=True, scope="module"),
]

T = TypeVar("T")

Define = Callable[[], tuple[Any, Callable[[], Any]]]
"""Returns an object, and a function that tells of it and of what is around it."""


def enums() -> Any:
    class Planet(enum.Enum):
        EARTH = (5.97e24, 6.37e6)
        TELLUS = EARTH
        MARS = (6.42e23, 3.39e6)

        def __init__(self, mass: float, radius: float) -> None:
            self.mass = mass
            self.radius = radius

    class Colour(str, enum.Enum):
        RED = ("red", 0xFF0000)

        def __new__(cls, value: str, rgb: int) -> Colour:
            self = str.__new__(cls, value)
            self._value_ = value
            self.rgb = rgb
            return self

        rgb: int

    class Numbers(list[int], enum.Enum):
        FEW = [1, 2]

    def tell() -> Any:
        members = [*Planet, *Colour, *Numbers]
        return (
            [(member.name, member is type(member)[member.name]) for member in members],
            [(planet.mass, planet is Planet(planet.value)) for planet in Planet],
            (Planet.TELLUS is Planet["TELLUS"] is Planet.EARTH, list(Planet)),
            (Colour.RED == "red", Colour("red").rgb, list(Numbers.FEW)),
        )

    return [Planet.MARS, Planet.TELLUS, Colour.RED, Numbers.FEW], tell


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


def keywords() -> Any:
    class Plugin:
        tag: Any = ""

        def __init_subclass__(cls, /, tag: Any = None) -> None:
            cls.tag = tag

    class Named(Plugin, tag="named"):
        pass

    return Named(), lambda: Named.tag


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


def descriptors() -> Any:
    class User:
        header = struct.Struct("<HI")

        @functools.cached_property
        def name(self) -> str:
            """What it is called."""
            return "user"

        @classmethod
        def kind(cls) -> str:
            return cls.__name__

        def called(self, *, by: str) -> str:
            return by + self.name

        greeted = functools.partialmethod(called, by="hello ")

    User.by_name = {"kind": User.kind}  # type: ignore[attr-defined]

    def tell() -> Any:
        user = User()
        said = user.greeted(), User.name.__doc__, User.kind(), User.by_name["kind"]()  # type: ignore[attr-defined]
        return said, user.name, User.header.pack(1, 2)

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
    enums,
    flags,
    slots,
    bodies,
    keywords,
    typed_dictionaries,
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


def wants_keywords() -> Any:
    class Tagged:
        def __init_subclass__(cls, /, tag: str) -> None:
            cls.tag = tag

    class WithTag(Tagged, tag="t"):
        pass

    return WithTag


def refuses_attributes() -> Any:
    class Constant(type):
        def __setattr__(cls, name: str, value: Any) -> None:
            raise AttributeError(f"{name} is constant")

    class Fixed(metaclass=Constant):
        def method(self) -> None: ...

    return Fixed


def made_of_more_than_values() -> Any:
    class Coordinate(bytes, enum.Enum):
        X = (0, "x axis")

        def __new__(cls, value: int, label: str) -> Coordinate:
            self = bytes.__new__(cls, [value])
            self._value_ = value
            return self

    return Coordinate


def made_of_several_values() -> Any:
    @dataclass(frozen=True)
    class Animal:
        size: str
        legs: int

    class Beast(Animal, enum.Enum):
        BEETLE = "small", 6

    return Beast


@pytest.mark.parametrize(
    "define",
    [wants_keywords, refuses_attributes, made_of_more_than_values, made_of_several_values],
    ids=lambda define: define.__name__,
)
async def test_classes_that_cannot_be_made_again(define: Callable[[], Any], place: Place) -> None:
    """The error names the class, and says what to do."""
    cls = define()

    @wool.routine
    async def name() -> str:
        return cls.__name__

    if not (place.remote if issubclass(cls, enum.Enum) else place.elsewhere):
        assert await name() == cls.__name__
        return
    with pytest.raises(wool.SerializationError, match=rf"{cls.__name__}.*to a module") as caught:
        await name()
    assert str(caught.value).count("to a module that the worker can import") == 1
