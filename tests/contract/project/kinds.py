"""Everything that a module may define."""

from __future__ import annotations

import abc
import enum
import functools
import logging
import threading
from dataclasses import InitVar, dataclass, field
from typing import Any, ClassVar, Generic, NamedTuple, NewType, Protocol, TypedDict, TypeVar

T = TypeVar("T")
UserId = NewType("UserId", int)
LOCK = threading.Lock()
LOGGER = logging.getLogger(__name__)
LIMITS = {"low": 1, "high": 9}
square = lambda x: x * x  # noqa: E731


@dataclass
class Point:
    x: int
    y: int = 0
    scale: InitVar[int] = 1
    count: ClassVar[int] = 0
    tags: list[str] = field(default_factory=list)

    def __post_init__(self, scale: int) -> None:
        self.x *= scale

    @property
    def sum(self) -> int:
        return self.x + self.y


@dataclass(frozen=True, slots=True)
class Frozen:
    value: int


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


class Mask(enum.Flag):
    A = 1
    B = 2


class Pair(NamedTuple):
    left: int
    right: int = 0


class Options(TypedDict, total=False):
    deep: bool


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self) -> int: ...


class Box(Shape, Generic[T]):
    __slots__ = ("item",)

    class Lid:
        pass

    def __init__(self, item: T) -> None:
        self.item = item

    def area(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return type(other) is Box and other.item == self.item

    def __hash__(self) -> int:
        return hash(self.item)


class HasArea(Protocol):
    def area(self) -> int: ...


class Broken(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Worse(Broken):
    pass


def doubled(function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return 2 * function(*args)

    return call


@doubled
def plus(x: int, y: int) -> int:
    return x + y


@functools.lru_cache
def cached(x: int) -> int:
    return x + 1


@functools.singledispatch
def kind(value: object) -> str:
    return "object"


@kind.register
def _(value: Point) -> str:
    return "point"
