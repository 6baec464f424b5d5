"""Partials, closures, functions as values, modules of any kind."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import re
import sys
import threading
from typing import Any

import numpy as np
import pytest

import wool
from contract.routines import (
    add,
    apply,
    count,
    echo,
)
from support.parity import NEAR, Place

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("place"),
    pytest.mark.parametrize("place", NEAR, indirect=True, scope="module"),
]


async def test_partial_of_a_routine() -> None:
    assert await functools.partial(add, 40)(2) == 42
    assert await functools.partial(add, y=1)(1) == 2
    assert [i async for i in functools.partial(count, 2)(start=5)] == [5, 6]


async def test_closures() -> None:
    offset = 10
    table = {"a": 1}

    def make(factor: int) -> Any:
        @wool.routine
        async def scaled(x: int) -> int:
            square: Any = lambda v: v * v  # noqa: E731

            def plus(v: int) -> int:
                return v + offset + table["a"]

            return plus(square(x)) * factor

        return scaled

    assert await make(1)(3) == 20
    assert await make(2)(3) == 40


async def test_a_closure_sees_its_variables_at_the_time_of_the_call() -> None:
    value = 1

    @wool.routine
    async def get() -> int:
        return value

    assert await get() == 1
    value = 2
    assert await get() == 2


async def test_a_recursive_closure_keeps_what_its_function_has() -> None:
    @wool.routine
    async def factorial(n: int, *, product: int = 1) -> Any:
        """Multiplies."""
        if n:
            return await factorial(n - 1, product=product * n)
        this: Any = factorial
        return product, this.__doc__, set(this.__annotations__), this.__kwdefaults__, this.unit

    factorial.unit = "pieces"  # type: ignore[attr-defined]
    names = {"n", "product", "return"}
    assert await factorial(5) == (120, "Multiplies.", names, {"product": 1}, "pieces")


async def test_functions_as_arguments_and_results() -> None:
    base = 5

    @wool.routine
    async def compose(f: Any, g: Any) -> Any:
        return lambda x: f(g(x)) + base

    assert (await compose(lambda x: x + 1, lambda x: x * 2))(10) == 26
    assert await apply(sorted, [3, 1, 2], reverse=True) == [3, 2, 1]
    assert await apply(add, 1, y=5) == 6

    @wool.routine
    async def local_routine(x: int) -> int:
        return x * base

    assert await apply(local_routine, 3) == 15
    returned = await echo(local_routine)
    assert await returned(4) == 20


async def test_decorators_above_and_below() -> None:
    def shouting(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return (await function(*args, **kwargs)).upper()

        return wrapper

    @shouting
    @wool.routine
    async def above(text: str) -> str:
        return text + "!"

    @wool.routine
    @shouting
    async def below(text: str) -> str:
        return text + "!"

    assert await above("a") == "A!"
    assert await below("b") == "B!"
    assert inspect.signature(below) == inspect.signature(above)


async def test_a_decorator_that_copies_defaults() -> None:
    """As tenacity's does: the wrapper has defaults and no parameters for them."""
    copied = (*functools.WRAPPER_ASSIGNMENTS, "__defaults__", "__kwdefaults__")

    def given(function: Any) -> Any:
        @functools.wraps(function, assigned=copied)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return args, kwargs, await function(*args, **kwargs)

        return wrapper

    def first(function: Any) -> Any:
        @functools.wraps(function, assigned=copied)
        async def wrapper(a: Any, /, *args: Any, **kwargs: Any) -> Any:
            return a, args, kwargs, await function(a, *args, **kwargs)

        return wrapper

    async def plain(a: int = 1, b: int = 2, *, c: int = 3) -> int:
        return a + b + c

    function, other = wool.routine(given(plain)), wool.routine(first(plain))
    assert await function() == ((), {}, 6)
    assert await function(1, 2, c=3) == ((1, 2), {"c": 3}, 6)
    assert await function(5) == ((5,), {}, 10)
    assert await other() == (2, (), {}, 7)  # Python takes the last of the defaults
    assert await other(2) == (2, (), {}, 7)
    assert await other(1, 2, c=3) == (1, (2,), {"c": 3}, 6)


async def test_what_of_a_routine_cannot_be_pickled(place: Place) -> None:
    """The variable is named, also one of what the routine calls."""
    if not place.remote:
        pytest.skip("nothing is pickled")
    lock = threading.Lock()

    def helper() -> Any:
        return helper if lock.locked() else lock

    class Holder:
        held = lock

    @wool.routine
    async def direct() -> Any:
        return lock

    @wool.routine
    async def indirect() -> Any:
        return [helper() for _ in range(1)]

    @wool.routine
    async def default(x: Any = lock) -> Any:
        return x

    @wool.routine
    async def keyword(*, x: Any = lock) -> Any:
        return x

    @wool.routine
    async def holder() -> Any:
        return Holder.held

    source = "import wool, threading\nlock = threading.Lock()\n"
    source += "@wool.routine\nasync def by_global():\n    yield lock\n"
    scope: dict[str, Any] = {"__name__": "made_here"}
    exec(compile(source, "<made here>", "exec"), scope)

    helper_name = helper.__qualname__
    for call, text in (
        (direct, "its variable 'lock' (lock)"),
        (indirect, f"the variable 'lock' (lock) of {helper_name}()"),
        (default, "its default of 'x' (lock)"),
        (keyword, "its default of 'x' (lock)"),
        (holder, "its variable 'Holder' (type)"),
        (lambda: anext(scope["by_global"]()), "its global 'lock' (lock)"),
    ):
        with pytest.raises(wool.SerializationError, match=re.escape(text)) as caught:
            await call()
        assert "'_thread.lock'" in str(caught.value) and "as an argument" in str(caught.value)


async def test_functions_of_a_module_decorated_elsewhere() -> None:
    from contract import undecorated

    double, numbers = wool.routine(undecorated.double), wool.routine(undecorated.numbers)
    assert await double(21) == 42
    assert [i async for i in numbers(3)] == [0, 1, 2]
    assert await undecorated.double(1) == 2

    class Child(undecorated.Plain):
        get = wool.routine(undecorated.Plain.get)

    assert await Child(3).get() == 3


async def test_options_of_the_decorator() -> None:
    @wool.routine()
    async def bare(x: int) -> int:
        return x

    @wool.routine(prefetch=4)
    async def ahead(n: int) -> Any:
        for i in range(n):
            yield i

    assert await bare(1) == 1
    assert inspect.isasyncgenfunction(ahead)
    assert [i async for i in ahead(20)] == list(range(20))


async def test_a_module_that_no_worker_can_import(tmp_path: Any) -> None:
    path = tmp_path / "contract_homeless.py"
    path.write_text(
        "import wool\n"
        "class Failure(Exception): pass\n"
        "def double(x): return 2 * x\n"
        "@wool.routine\n"
        "async def run(x):\n"
        "    if x < 0: raise Failure(x)\n"
        "    return double(x)\n"
    )
    spec = importlib.util.spec_from_file_location("contract_homeless", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["contract_homeless"] = module
    try:
        spec.loader.exec_module(module)
        assert await module.run(21) == 42
        with pytest.raises(module.Failure) as raised:
            await module.run(-1)
        assert raised.value.args == (-1,)
    finally:
        del sys.modules["contract_homeless"]


async def test_what_a_closure_may_hold() -> None:
    import logging
    import re

    logger = logging.getLogger("contract.closure")
    pattern = re.compile("a+")
    table = np.arange(1000)
    words = {"a": [1, 2]}
    numbers = count

    class Base:
        def name(self) -> str:
            return "base"

    class Child(Base):
        def name(self) -> str:
            return "child of " + super().name()

    child = Child()

    @wool.routine
    async def use() -> Any:
        logger.debug("not shown")
        return (
            pattern.fullmatch("aaa") is not None,
            int(table.sum()),
            words["a"][1],
            [i async for i in numbers(2)],
            child.name(),
            isinstance(child, Base),
            logger is logging.getLogger("contract.closure"),
        )

    assert await use() == (True, 499500, 2, [0, 1], "child of base", True, True)


async def test_a_routine_made_inside_a_routine() -> None:
    @wool.routine
    async def outer(n: int) -> Any:
        @wool.routine
        async def inner(x: int) -> int:
            return x + n

        class Local:
            @wool.routine
            async def get(self) -> int:
                return await inner(100)

        return await inner(1), await Local().get(), inner

    first, second, inner = await outer(5)
    assert (first, second) == (6, 105)
    assert await inner(1) == 6
