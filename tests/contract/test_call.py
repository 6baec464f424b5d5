"""Calling: what a routine is, what a call returns, when something happens, which arguments fit."""

from __future__ import annotations

import asyncio
import collections.abc
import functools
import gc
import importlib.util
import inspect
import pickle
import sys
import threading
import types
import typing
import warnings
from dataclasses import dataclass
from typing import Any

import pytest

import wool
from contract import routines
from contract.routines import (
    Account,
    Savings,
    add,
    apply,
    collect,
    count,
    echo,
    echoing,
    parameters,
    serving,
    tracing,
)
from contract.support import Journal, Place, turns

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]


# What a call returns, and when something happens


async def test_a_call_returns_a_coroutine() -> None:
    call = add(1)
    assert type(call) is types.CoroutineType
    assert isinstance(call, collections.abc.Coroutine)
    assert inspect.getcoroutinestate(call) == inspect.CORO_CREATED
    assert (call.__name__, call.__qualname__) == ("add", "add")
    assert await call == 3
    assert inspect.getcoroutinestate(call) == inspect.CORO_CLOSED


async def test_a_generator_call_returns_an_async_generator() -> None:
    call = count(2)
    assert type(call) is types.AsyncGeneratorType
    assert isinstance(call, collections.abc.AsyncGenerator)
    assert aiter(call) is call
    assert (call.__name__, call.__qualname__) == ("count", "count")
    assert [i async for i in call] == [0, 1]


async def test_nothing_happens_before_the_await(journal: Journal) -> None:
    call = routines.write(journal, "ran")
    await turns(5)
    await serving()
    assert journal.lines() == []
    await call
    assert journal.lines() == ["ran"]


async def test_nothing_happens_before_the_first_step(journal: Journal) -> None:
    stream = tracing(journal)
    await turns(5)
    await serving()
    assert journal.lines() == []
    assert await anext(stream) == 0
    assert journal.lines() == ["step 0"]
    await stream.aclose()


async def test_arguments_are_those_of_the_await(place: Place) -> None:
    values = [1]
    call = echo(values)
    values.append(2)
    assert await call == [1, 2]


async def test_a_closed_call_never_runs(journal: Journal) -> None:
    call = routines.write(journal, "ran")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call.close()
        del call
        gc.collect()
    await serving()
    assert journal.lines() == []


async def test_a_stream_closed_before_its_first_step_never_runs(journal: Journal) -> None:
    stream = tracing(journal)
    await stream.aclose()
    assert [i async for i in stream] == []
    assert journal.lines() == []


async def test_a_call_never_awaited_warns_as_any_coroutine_does(journal: Journal) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        routines.write(journal, "ran")
        gc.collect()
    assert [(w.category, str(w.message)) for w in seen] == [
        (RuntimeWarning, "coroutine 'write' was never awaited")
    ]
    await serving()
    assert journal.lines() == []


async def test_a_method_never_awaited_warns_with_its_qualified_name() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        Account().deposit(1)
        gc.collect()
    assert [str(w.message) for w in seen] == ["coroutine 'Account.deposit' was never awaited"]


async def test_a_generator_never_iterated_does_not_warn(journal: Journal) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        tracing(journal)
        gc.collect()
    assert seen == []
    assert journal.lines() == []


async def test_a_call_is_awaited_once() -> None:
    call = add(1)
    assert await call == 3
    for _ in range(2):
        with pytest.raises(RuntimeError) as raised:
            await call
        assert raised.value.args == ("cannot reuse already awaited coroutine",)


async def test_a_failed_call_is_awaited_once() -> None:
    call = routines.fail(ValueError("x"))
    with pytest.raises(ValueError):
        await call
    with pytest.raises(RuntimeError, match="^cannot reuse already awaited coroutine$"):
        await call


async def test_a_closed_call_cannot_be_awaited() -> None:
    call = add(1)
    call.close()
    with pytest.raises(RuntimeError, match="^cannot reuse already awaited coroutine$"):
        await call


async def test_a_call_being_awaited_cannot_be_awaited_again(journal: Journal) -> None:
    call = routines.finish_when(journal, "go on", "done")
    first = asyncio.create_task(call)
    await journal.wait("started")
    with pytest.raises(RuntimeError, match="^coroutine is being awaited already$"):
        await call
    journal.write("go on")
    assert await first == "done"


async def test_an_exception_thrown_into_an_unstarted_call_comes_out(journal: Journal) -> None:
    call = routines.write(journal, "ran")
    error = ValueError("thrown")
    with pytest.raises(ValueError) as raised:
        call.throw(error)
    assert raised.value is error
    assert journal.lines() == []


# Arguments


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((1,), {"d": 4}, (1, "b", "c", (), 4, "e", {})),
        ((1, 2), {"d": 4, "e": 5}, (1, 2, "c", (), 4, 5, {})),
        ((1, 2, 3), {"d": 4}, (1, 2, 3, (), 4, "e", {})),
        ((1, 2, 3, 4, 5), {"d": None}, (1, 2, 3, (4, 5), None, "e", {})),
        ((1,), {"c": 3, "d": 4, "z": 26}, (1, "b", 3, (), 4, "e", {"z": 26})),
        ((1,), {"d": 4, "a": "rest"}, (1, "b", "c", (), 4, "e", {"a": "rest"})),
    ],
)
async def test_arguments_bind_as_they_do_locally(
    args: Any, kwargs: dict[str, Any], expected: Any
) -> None:
    assert await parameters(*args, **kwargs) == expected


async def test_any_keyword_may_be_an_argument() -> None:
    names = "self cls args kwargs function fn func call routine pool worker timeout tags name id"
    given = {name: i for i, name in enumerate(names.split())}
    assert await collect(1, **given) == ((1,), given)
    assert await collect(*range(300)) == (tuple(range(300)), {})


_bad_calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((1, 2, 3), {}),
    ((1,), {"z": 3}),
    ((1,), {"x": 3}),
    ((), {"y": 3}),
]


@pytest.mark.parametrize(("args", "kwargs"), _bad_calls)
async def test_wrong_arguments_raise_at_the_call(args: Any, kwargs: dict[str, Any]) -> None:
    async def add(x: int, y: int = 2) -> int:
        return x + y

    remote_add = wool.routine(add)
    with pytest.raises(TypeError) as expected:
        add(*args, **kwargs)
    with pytest.raises(TypeError) as raised:
        remote_add(*args, **kwargs)
    assert str(raised.value) == str(expected.value)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1,), {}), ((), {"a": 1, "d": 2}), ((1,), {"e": 2})],
)
async def test_wrong_parameters_raise_at_the_call(args: Any, kwargs: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="missing 1 required"):
        parameters(*args, **kwargs)


@pytest.mark.parametrize(("args", "kwargs"), _bad_calls[1:])
async def test_wrong_arguments_of_a_generator_raise_at_the_call(
    args: Any, kwargs: dict[str, Any]
) -> None:
    async def numbers(x: int = 1, *, y: int) -> Any:
        yield x

    stream = wool.routine(numbers)
    if kwargs == {"y": 3}:
        assert [i async for i in stream(*args, **kwargs)] == [1]
        return
    with pytest.raises(TypeError) as expected:
        numbers(*args, **kwargs)
    with pytest.raises(TypeError) as raised:
        stream(*args, **kwargs)
    assert str(raised.value) == str(expected.value)


async def test_wrong_arguments_of_a_method_raise_at_the_call() -> None:
    with pytest.raises(TypeError, match=r"deposit\(\) missing 1 required .*'amount'"):
        Account().deposit()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"sum_inside\(\) takes 2 positional .* 3 were given"):
        Account.sum_inside(1, 2, 3)  # type: ignore[call-arg]


async def test_wrong_arguments_leave_no_warning() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(TypeError):
            add()  # type: ignore[call-arg]
        gc.collect()
    assert seen == []


async def test_a_mutable_default_is_used() -> None:
    @wool.routine
    async def remember(value: int, seen: list[int] = []) -> list[int]:  # noqa: B006
        seen.append(value)
        return seen

    assert await remember(1) == [1]
    assert await remember(2, []) == [2]
    assert await remember(3, [1, 2]) == [1, 2, 3]


async def test_defaults_of_any_kind() -> None:
    missing = object()

    @wool.routine
    async def lookup(key: str = "k", *, fallback: Any = missing, scale: float = 2.5) -> Any:
        return (key, fallback is missing, scale)

    assert await lookup() == ("k", True, 2.5)
    assert await lookup(fallback=None) == ("k", False, 2.5)


async def test_arguments_and_results_are_copies_elsewhere(place: Place) -> None:
    values = [1]

    @wool.routine
    async def extend(given: list[int]) -> list[int]:
        given.append(2)
        return given

    result = await extend(values)
    assert result == [1, 2]
    assert values == ([1] if place.remote else [1, 2])
    assert (result is values) is not place.remote


# Methods


@pytest.mark.parametrize(
    ("kind", "deposited", "suffix", "statement"),
    [(Account, 15, "EUR!", [11, 13]), (Savings, 150, "CHF!", [-11, -13])],
)
async def test_methods(kind: type[Account], deposited: int, suffix: str, statement: Any) -> None:
    assert await kind(10).deposit(5) == deposited
    assert await kind(10).deposit(amount=5) == deposited
    assert await kind.deposit(kind(10), 5) == deposited
    assert [b async for b in kind(10).statement(1, 2)] == statement
    assert await kind.named_inside("!") == suffix
    assert await kind.named_outside("!") == suffix
    assert await kind().named_inside("!") == suffix
    assert await kind().named_outside("!") == suffix
    assert await kind.sum_inside(1, 2) == 3
    assert await kind.sum_outside(1, 2) == 3
    assert await kind().sum_inside(1, y=2) == 3
    assert await kind().sum_outside(1, y=2) == 3
    assert [x async for x in kind.stream_inside(2)] == [f"{kind.currency}0", f"{kind.currency}1"]
    assert [x async for x in kind().stream_outside(2)] == [0, 1]
    assert await kind(10)(5) == 15


async def test_bound_methods_are_values() -> None:
    deposit = Account(1).deposit
    assert await deposit(1) == 2
    assert await asyncio.gather(*map(Account(1).deposit, [])) == []
    assert await apply(Account(5).deposit, 1) == 6
    assert await functools.partial(Account.deposit, Account(1))(2) == 3
    assert await routines.Account.named_outside(suffix="?") == "EUR?"


async def test_methods_of_a_class_made_in_a_closure() -> None:
    bonus = 100

    class Base:
        def __init__(self, n: int) -> None:
            self.n = n

        @wool.routine
        async def get(self) -> int:
            return self.n + bonus

        @wool.routine
        @classmethod
        async def make(cls, n: int) -> Base:
            return cls(n)

        @staticmethod
        @wool.routine
        async def plus(x: int) -> int:
            return x + bonus

        @wool.routine
        async def up_to(self, *, step: int = 1) -> Any:
            for i in range(0, self.n, step):
                yield i

    class Child(Base):
        @wool.routine
        async def get(self) -> int:
            return -await super().get()

    assert await Base(1).get() == 101
    assert await Child(1).get() == -101
    made = await Child.make(7)
    assert type(made) is Child and made.n == 7
    assert type(await Base.make(7)) is Base
    assert await Child.plus(1) == 101
    assert [i async for i in Child(4).up_to(step=2)] == [0, 2]


async def test_methods_of_dataclasses_slots_and_properties() -> None:
    @dataclass(frozen=True)
    class Rectangle:
        width: int
        height: int = 2

        @property
        def area(self) -> int:
            return self.width * self.height

        @wool.routine
        async def scaled(self, factor: int) -> int:
            return self.area * factor

    class Slotted:
        __slots__ = ("n",)

        def __init__(self, n: int) -> None:
            self.n = n

        @wool.routine
        async def get(self) -> int:
            return self.n

    assert await Rectangle(3).scaled(10) == 60
    assert await Slotted(5).get() == 5


async def test_private_names_in_methods() -> None:
    class Secretive:
        def __init__(self) -> None:
            self.__hidden = 3

        def __reveal(self) -> int:
            return self.__hidden

        @wool.routine
        async def reveal(self) -> int:
            return self.__reveal()

    assert await Secretive().reveal() == 3


async def test_partialmethod() -> None:
    class Till:
        @wool.routine
        async def put(self, kind: str, n: int) -> str:
            return f"{n} {kind}"

        put_coins = functools.partialmethod(put, "coins")

    assert await Till().put_coins(3) == "3 coins"


# Partials, closures, functions as values


async def test_partial_of_a_routine() -> None:
    assert await functools.partial(add, 40)(2) == 42
    assert await functools.partial(add, y=1)(1) == 2
    assert [i async for i in functools.partial(count, 2)(start=5)] == [5, 6]


async def test_routine_of_a_partial() -> None:
    async def plain(x: int, y: int, *, z: int = 0) -> int:
        return x + y + z

    async def numbers(n: int, start: int) -> Any:
        for i in range(n):
            yield start + i

    plus_one = wool.routine(functools.partial(plain, 1, z=10))
    assert inspect.iscoroutinefunction(plus_one)
    assert await plus_one(2) == 13
    assert await plus_one(2, z=20) == 23
    three = wool.routine(functools.partial(numbers, 3))
    assert inspect.isasyncgenfunction(three)
    assert [i async for i in three(5)] == [5, 6, 7]


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


async def test_nonlocal_within_one_call() -> None:
    @wool.routine
    async def counted() -> int:
        n = 0

        def up() -> None:
            nonlocal n
            n += 1

        up()
        up()
        return n

    assert await counted() == 2


async def test_a_recursive_closure() -> None:
    @wool.routine
    async def factorial(n: int) -> int:
        return 1 if n == 0 else n * await factorial(n - 1)

    assert await factorial(10) == 3628800


async def test_a_closure_that_calls_other_routines() -> None:
    @wool.routine
    async def inner(x: int) -> int:
        return await add(x, 1)

    @wool.routine
    async def outer(x: int) -> int:
        return await inner(x) + await add(0, 100)

    assert await outer(1) == 102


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


# What the decorator keeps


async def test_inspection() -> None:
    assert inspect.iscoroutinefunction(add)
    assert not inspect.isasyncgenfunction(add)
    assert inspect.isasyncgenfunction(count)
    assert not inspect.iscoroutinefunction(count)
    for method in (Account.deposit, Account().deposit, Account.named_inside, Account.named_outside,
                   Account.sum_inside, Account.sum_outside, Account().sum_outside):  # fmt: skip
        assert inspect.iscoroutinefunction(method)
    for method in (Account.statement, Account().statement, Account.stream_inside,
                   Account.stream_outside):  # fmt: skip
        assert inspect.isasyncgenfunction(method)
    assert inspect.ismethod(Account().deposit)
    assert inspect.isfunction(Account.sum_outside)


async def test_metadata() -> None:
    def decorator_free() -> Any:
        async def documented(x: int, /, y: str = "y", *rest: Any, z: float, **more: Any) -> bytes:
            """What it does."""
            return b""

        return documented

    plain = decorator_free()
    plain.custom = "attribute"
    routine = wool.routine(plain)
    for name in ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__"):
        assert getattr(routine, name) == getattr(plain, name)
    assert routine.custom == "attribute"
    assert routine.__wrapped__ is plain
    assert inspect.unwrap(routine) is plain
    assert inspect.signature(routine) == inspect.signature(plain)
    assert typing.get_type_hints(add) == {"x": int, "y": int, "return": int}
    assert "return x + y" in inspect.getsource(add)
    assert str(inspect.signature(Account().deposit)) == "(amount: 'int') -> 'int'"
    assert str(inspect.signature(Account.named_outside)) == "(suffix: 'str') -> 'str'"
    assert Account.deposit.__doc__ == "Put something in."


async def test_the_original_is_untouched(journal: Journal) -> None:
    async def plain(x: int) -> int:
        return x + 1

    routine = wool.routine(plain)
    assert routine is not plain
    assert not hasattr(plain, "__wrapped__")
    assert await plain(1) == 2
    assert await routine.__wrapped__(1) == 2
    assert await routine(1) == 2


async def test_a_routine_pickles_by_name() -> None:
    assert pickle.loads(pickle.dumps(add)) is add
    assert pickle.loads(pickle.dumps(Account.sum_outside)) is Account.sum_outside
    assert await echo(add) is add
    assert (await echo([count]))[0] is count


# What is refused


def sync_function(x: int) -> int:
    return x


def sync_generator() -> Any:
    yield 1


class SomeClass:
    pass


@pytest.mark.parametrize(
    "what",
    [sync_function, lambda: None, staticmethod(sync_function), classmethod(sync_function),
     functools.partial(sync_function, 1), len],
    ids=["function", "lambda", "staticmethod", "classmethod", "partial", "builtin"],
)  # fmt: skip
async def test_a_sync_function_is_refused(what: Any) -> None:
    with pytest.raises(TypeError, match="async def") as raised:
        wool.routine(what)
    assert "asyncio.to_thread" in str(raised.value)


@pytest.mark.parametrize("what", [sync_generator, SomeClass, 3, "add"])
async def test_what_is_no_async_function_is_refused(what: Any) -> None:
    with pytest.raises(TypeError, match="async def"):
        wool.routine(what)


async def test_a_coroutine_is_refused() -> None:
    call = add(1)
    with pytest.raises(TypeError):
        wool.routine(call)  # type: ignore[call-overload]
    call.close()


# Where a call may be awaited


async def test_every_way_to_run_a_coroutine() -> None:
    loop = asyncio.get_running_loop()
    assert await asyncio.create_task(add(1)) == 3
    assert await asyncio.ensure_future(add(2)) == 4
    assert await asyncio.gather(add(1), add(2), add(3)) == [3, 4, 5]
    assert await asyncio.wait_for(add(1), 10) == 3
    assert await asyncio.shield(add(1)) == 3
    assert sorted([await f for f in asyncio.as_completed([add(1), add(2)])]) == [3, 4]
    done, pending = await asyncio.wait([asyncio.create_task(add(1))])
    assert [t.result() for t in done] == [3] and not pending
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(add(i), name=f"task {i}") for i in range(3)]
    assert [task.result() for task in tasks] == [2, 3, 4]
    future = loop.create_future()
    loop.call_soon(lambda: asyncio.ensure_future(add(1)).add_done_callback(future.set_result))
    assert (await future).result() == 3


async def test_from_another_thread() -> None:
    loop = asyncio.get_running_loop()

    def other_thread() -> int:
        return asyncio.run_coroutine_threadsafe(add(1), loop).result(10)

    assert await asyncio.to_thread(other_thread) == 3


async def test_from_the_loop_of_another_thread() -> None:
    async def main() -> Any:
        return await add(1), [i async for i in count(2)], await asyncio.gather(add(2), add(3))

    expected = (3, [0, 1], [4, 5])
    assert await asyncio.to_thread(asyncio.run, main()) == expected

    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(main())))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert results == [expected]


async def test_many_loops_one_after_another() -> None:
    def run_all() -> list[int]:
        return [asyncio.run(add(i)) for i in range(5)]

    assert await asyncio.to_thread(run_all) == [2, 3, 4, 5, 6]


async def test_a_generator_driven_from_several_tasks() -> None:
    stream = echoing()
    assert await asyncio.create_task(asyncio.wait_for(anext(stream), 10)) == "ready"

    async def send(value: Any) -> Any:
        return await stream.asend(value)

    assert await asyncio.create_task(send(1)) == 1
    assert await asyncio.create_task(send(2)) == 2
    with pytest.raises(StopAsyncIteration):
        await stream.asend("stop")
