"""Classes that the parity suite passes around, importable by workers."""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")


@dataclass
class Point:
    x: int
    y: int = 0
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FrozenPoint:
    x: int
    y: int


class Pair(NamedTuple):
    left: Any
    right: Any = None


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 9


class Permission(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Slots:
    __slots__ = ("a", "b")

    def __init__(self, a: Any, b: Any) -> None:
        self.a = a
        self.b = b

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slots) and (self.a, self.b) == (other.a, other.b)

    __hash__ = None  # type: ignore[assignment]


class Box(Generic[T]):
    def __init__(self, content: T) -> None:
        self.content = content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)


class _Missing:
    def __reduce__(self) -> str:
        return "MISSING"


MISSING = _Missing()


# Exceptions. Each has another relation between its constructor and its `args`.


class Plain(Exception):
    pass


class Derived(Plain, KeyError):
    pass


class KeywordOnly(Exception):
    def __init__(self, *, code: int, hint: str = "") -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.hint = hint


class KeywordOnlySilent(Exception):
    """Leaves `args` empty."""

    def __init__(self, *, code: int) -> None:
        self.code = code


class NoArguments(Exception):
    def __init__(self) -> None:
        super().__init__("x")


class OtherArguments(Exception):
    """`args` are not what the constructor takes."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.a = a
        self.b = b


class Strict(Exception):
    """Its constructor refuses what is in `args`."""

    def __init__(self, number: int) -> None:
        if not isinstance(number, int):
            raise TypeError("number must be an int")
        super().__init__(f"number {number}")
        self.number = number


class Noisy(Exception):
    """Tells each time that its constructor runs."""

    def __init__(self, journal: Any) -> None:
        super().__init__(journal)
        journal.write("made")


class Slotted(Exception):
    __slots__ = ("code", "detail", "unset")

    def __init__(self, message: str, code: int, detail: Any) -> None:
        super().__init__(message)
        self.code = code
        self.detail = detail


class SlottedChild(Slotted):
    __slots__ = ("more",)

    def __init__(self, message: str, code: int, detail: Any, more: Any) -> None:
        super().__init__(message, code, detail)
        self.more = more


class WithNew(Exception):
    def __new__(cls, *, code: int) -> WithNew:
        made = super().__new__(cls)
        made.code = code
        return made

    def __init__(self, *, code: int) -> None:
        super().__init__("made by new")

    code: int


class Reducing(Exception):
    def __init__(self, a: int, *, b: int) -> None:
        super().__init__(a)
        self.b = b

    def __reduce__(self) -> Any:
        return (_reducing, (self.args[0], self.b))


def _reducing(a: int, b: int) -> Reducing:
    return Reducing(a, b=b)


class Spoken(Exception):
    def __str__(self) -> str:
        return f"spoken {self.args!r}"


@dataclass
class Tabulated(Exception):
    code: int
    message: str = "none"


class GenericError(Exception, Generic[T]):
    def __init__(self, content: T) -> None:
        super().__init__(content)
        self.content = content


class WithLock(Exception):
    """Holds something that no serializer takes."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()
        self.code = 7


class WithProperty(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self._code = code

    @property
    def code(self) -> int:
        return self._code


class Fatal(BaseException):
    def __init__(self, message: str, *, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class Group(ExceptionGroup[Exception]):
    """A group that survives `split` with its attribute, as the documentation recommends."""

    code: int

    def __new__(cls, message: str, errors: list[Exception], code: int = 0) -> Group:
        self = super().__new__(cls, message, errors)
        self.code = code
        return self

    def derive(self, errors: Any) -> Group:
        return Group(self.message, errors, self.code)


def beneath(cls: object) -> str:
    """Has a descriptor around it that is in its place, as a function of `typing` has."""
    return "beneath"


globals()["beneath"] = classmethod(beneath)
