"""Functions of `__main__`: helpers, globals, closures, imports."""

import asyncio
import functools
import json as encoder
import math
import sys
import threading
import typing
from collections import Counter

import comparing

import wool

FACTOR = 3
TABLE = {"a": 1, "b": [2]}
unused_lock = threading.Lock()


def helper(x):
    return x * FACTOR + TABLE["a"]


def guarded():
    with unused_lock:
        return "guarded"


@wool.routine
async def plain(x, y=2, *rest, z=3, **more):
    """The documentation."""
    return helper(x), y, rest, z, more


@wool.routine
async def stream(n):
    for i in range(n):
        yield helper(i)


@wool.routine
async def recursive(n, first=0, *, last=()):
    return [n, *(await recursive(n - 1))] if n else [*last]


@wool.routine
async def imports():
    import os.path
    import string

    return string.digits, os.path.basename("/a/b"), math.floor(2.5), encoder.dumps(Counter("aab"))


@wool.routine
async def defines():
    class Product:
        factor = FACTOR

    return Product.factor


@wool.routine
async def lambdas():
    def power(n):
        return lambda x: x**n

    return [power(n)(2) for n in range(4)], sorted("bca", key=lambda c: -ord(c))


def make(offset):
    total = [0]

    @wool.routine
    async def closure(x):
        total[0] += x
        return total[0] + offset

    return closure


@wool.routine
async def call(function, *args):
    result = function(*args)
    return await result if asyncio.iscoroutine(result) else result


@wool.routine
async def name():
    return __name__


async def call_plain():
    return await plain(1), await plain(1, 2, 3, z=4, q=5)


async def call_stream():
    return [i async for i in stream(4)]


async def call_recursive():
    return await recursive(5)


async def call_imports():
    return await imports()


async def call_lambdas():
    return await lambdas()


async def call_defines():
    return await defines()


async def call_closures():
    return await make(10)(5), await make(20)(5)


async def call_functions_as_arguments():
    return (
        await call(helper, 2),
        await call(lambda x: x + FACTOR, 2),
        await call(plain, 5),
        await call(functools.partial(plain, 1, y=9)),
        await call(make(1), 2),
    )


async def call_many():
    return await asyncio.gather(*(plain(n) for n in range(50)))


async def call_map():
    return [x async for x in wool.map(plain, range(20), limit=4)]


async def call_wrongly():
    return await plain()


@functools.lru_cache(maxsize=10)
def cached(n):
    return n if n < 2 else cached(n - 1) + cached(n - 2)


@functools.singledispatch
def kind(value):
    return "anything"


@kind.register
def _(value: int):
    return "a number"


@wool.routine
async def use_library(n):
    return cached(n), cached.cache_parameters(), kind(n), kind("text")


async def of_the_standard_library():
    kind("text")  # which it keeps in mind
    return (
        await use_library(20),
        await use_library(21),
        await call(cached, 9),
        await call(lambda: kind(1)),
    )


P = typing.ParamSpec("P")
Ts = typing.TypeVarTuple("Ts")
Count = typing.NewType("Count", int)


def passing(function: typing.Callable[P, typing.Any]):
    async def inner(*args: P.args, **kwargs: P.kwargs):
        return await function(*args, **kwargs)

    return inner


@wool.routine
@passing
async def annotated(n: Count, *rest: typing.Unpack[Ts]) -> typing.Callable[P, Count]:
    return Count(n), rest, P.__name__


counted = {Count: "by identity"}


@wool.routine
async def look_up(new_type):
    return counted[new_type], counted[Count], repr(new_type), new_type


async def of_typing():
    *found, new_type = await look_up(Count)
    outcomes = [await annotated(1, 2), *found, new_type is Count]
    if sys.version_info >= (3, 12):
        scope = {"wool": wool, "__name__": "__main__"}
        exec(PARAMETERS, scope)
        node = scope["Node"]()
        outcomes += [await scope["aliased"](3), await node.method(), await scope["again"](1)]
        for name in "T", "Pair":
            outcomes.append((await call(lambda p: p, scope[name])) is scope[name])
    return outcomes


PARAMETERS = """
type Pair = tuple[int, int]
type Tree = list[Tree] | Pair
type Pairs = list[Pair] | Tree
type Unknown = dict[str, unknown.Thing]

@wool.routine
async def aliased[T: int, *Us](n: T, tree: Tree = (), *us: *Us, it: Unknown = 0) -> Pair | Pairs:
    return n, n, Pair.__name__, Tree.__name__, us

type Nested[A] = A | list[Nested[A]]

class Node[N: Node, U: unknown.Thing, S: (int, str)]:
    @wool.routine
    async def method[M: Nested[int]](self, nested: Nested[int] = 0) -> N | M:
        return [p.__name__ for p in (*Node.__type_params__, N, U, S, M)]

@wool.routine
async def again[T](n: T) -> T:
    return (await again(n - 1)) if n else [p.__name__ for p in again.__type_params__]

(T,) = again.__type_params__
"""


async def functions_as_results():
    function = await call(lambda: helper)
    return function(3), await (await call(lambda: plain))(3) == await plain(3)


async def name_of_the_module():
    return await name()


comparing.compare(
    call_plain,
    call_stream,
    call_recursive,
    call_imports,
    call_lambdas,
    call_defines,
    call_closures,
    call_functions_as_arguments,
    call_many,
    call_map,
    call_wrongly,
    of_the_standard_library,
    of_typing,
    functions_as_results,
    name_of_the_module,
)
