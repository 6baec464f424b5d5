"""Classes of `__main__`: identity, inheritance, methods; the caller's own are never touched."""

import abc
import dataclasses
import enum
import functools
import typing

import comparing

import wool


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class Flags(enum.Flag):
    A = enum.auto()
    B = enum.auto()


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0
    colour: Colour = Colour.RED

    def moved(self, by):
        return Point(self.x + by, self.y + by, self.colour)


class Pair(typing.NamedTuple):
    left: object
    right: object = None


class Shape(abc.ABC):
    registry = {}
    sides = 0

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        Shape.registry[cls.__name__] = cls

    @abc.abstractmethod
    def area(self): ...

    @wool.routine
    async def describe(self):
        return f"{type(self).__name__} of {self.sides} sides, area {self.area()}"

    @wool.routine
    async def corners(self):
        for i in range(self.sides):
            yield i, type(self)

    @wool.routine
    @classmethod
    async def count(cls):
        return cls.sides, cls

    @staticmethod
    @wool.routine
    async def unit():
        return Square(1)


class Square(Shape):
    sides = 4

    def __init__(self, size):
        self.size = size

    def __eq__(self, other):
        return isinstance(other, Square) and self.size == other.size

    __hash__ = None

    def area(self):
        return self.size**2

    @wool.routine
    async def describe(self):
        return "square: " + await super().describe()


class Slots:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Outer:
    class Inner:
        def __init__(self, n):
            self.n = n

    @wool.routine
    async def inner(self, n):
        return Outer.Inner(n)


@wool.routine
async def echo(value):
    return value


@wool.routine
async def look(point):
    return isinstance(point, Point), point.colour is Colour.RED, point == Point(1, 2)


async def values():
    value = [Point(1, 2), Pair(Point(3)), Colour.GREEN, Flags.A | Flags.B, Square(2)]
    result = await echo(value)
    return (
        result == value,
        [type(v) for v in result],
        result[2] is Colour.GREEN,
        result[0].moved(1),
        (await echo(Slots(5))).value,
    )


async def classes():
    return [await echo(c) is c for c in (Colour, Point, Pair, Square, Shape, Outer.Inner)]


async def inside():
    return await look(Point(1, 2)), await look(Point(1, 2, Colour.GREEN))


async def methods():
    square = Square(3)
    return (
        await square.describe(),
        [corner async for corner in square.corners()],
        await square.count(),
        await Square.count(),
        await Shape.unit(),
        type(await Outer().inner(3)) is Outer.Inner,
    )


class Lazy:
    @functools.cached_property
    def numbers(self):
        """Documented."""
        return [1]

    @functools.lru_cache
    def squared(self, n):
        return n * n

    class Inner:
        pass


@wool.routine
async def use_lazy(lazy):
    class Local:
        pass

    return (
        lazy.numbers is lazy.numbers,
        type(lazy).numbers.__doc__,
        lazy.squared(3),
        Lazy.Inner.__qualname__,
        Local.__qualname__,
        Local.__qualname__ == (await look_at(Local)),
    )


@wool.routine
async def look_at(cls):
    return cls.__qualname__


async def lazy():
    class Here:
        pass

    return await use_lazy(Lazy()), await look_at(Here)


class Failure(Exception):
    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class Child(Failure, KeyError):
    pass


@wool.routine
async def failing():
    try:
        raise Failure(code=1)
    except Failure as error:
        error.add_note("noted")
        raise Child(code=2) from error


async def failures():
    try:
        await failing()
    except KeyError as error:
        cause = error.__cause__
        return type(error) is Child, error.code, type(cause) is Failure, cause.code, cause.__notes__


class Parent:
    @classmethod
    def own_name(cls):
        return "parent"


class Keeper(Parent):
    """As pydantic's models do, it has methods of its own in its body."""

    @classmethod
    def own_name(cls):
        return cls.__name__

    @wool.routine
    @classmethod
    async def own_name_there(cls):
        return cls.own_name()


Keeper.kept = [Keeper.own_name, Keeper.own_name_there]


@wool.routine
async def use_kept():
    name, there = Keeper.kept
    return name(), await there(), name == Keeper.own_name, there == Keeper.own_name_there


@wool.routine
async def use_kept_of(keeper):
    name, there = keeper.kept
    return name(), await there(), name == type(keeper).own_name, await use_kept()


async def kept():
    return await use_kept(), await use_kept_of(Keeper()), [name() for name in Keeper.kept[:1]]


async def untouched():
    before = {name: value for name, value in vars(Point).items() if callable(value)}
    await echo(Point(1))
    await echo(Square(1))
    after = {name: value for name, value in vars(Point).items() if callable(value)}
    return (
        all(after[name] is value for name, value in before.items()) and len(before) == len(after),
        Shape.registry == {"Square": Square},
    )


async def patched():
    original = Point.moved
    Point.moved = lambda self, by: "patched"
    try:
        point = await echo(Point(1))
        return point.moved(1), type(point) is Point, Point(1).moved(1)
    finally:
        Point.moved = original


comparing.compare(values, classes, inside, methods, lazy, failures, kept, untouched, patched)
