"""Context variables of `__main__`: at its top, of a class, of a closure, with values of its own."""

import asyncio
from contextvars import ContextVar, copy_context

import comparing

import wool

request = ContextVar("request")
counter = ContextVar("counter", default=0)
setting = ContextVar("a name of its own", default={"a": 1})


class State:
    current = ContextVar("current", default=None)

    def __init__(self, n):
        self.n = n

    def __eq__(self, other):
        return type(other) is State and self.n == other.n


def make_variable():
    hidden = ContextVar("hidden", default="nothing")

    @wool.routine
    async def use(value):
        before = hidden.get()
        hidden.set(value)
        return before

    return hidden, use


hidden, use_hidden = make_variable()


def helper():
    return request.get("unset"), counter.get(), setting.get(), State.current.get()


@wool.routine
async def look():
    return helper()


@wool.routine
async def count(n):
    counter.set(counter.get() + 1)
    if n:
        await count(n - 1)
    return counter.get()


@wool.routine
async def change():
    request.set("changed")
    setting.set({"b": 2})
    state = State.current.get()
    State.current.set(State(state.n + 1 if state else 0))
    return State.current.get()


@wool.routine
async def steps():
    token = request.set("borrowed")
    yield helper()
    request.reset(token)
    yield helper()
    counter.set(99)


async def defaults():
    return await look()


async def visible():
    request.set("r")
    State.current.set(State(1))
    return await look(), type(State.current.get()) is State


async def changed():
    return await change(), await change(), helper(), await look()


async def nested():
    return await count(5), counter.get()


async def in_tasks():
    async def one(n):
        request.set(n)
        return await look(), await change(), request.get()

    return await asyncio.gather(*map(one, range(5))), helper()


async def streams():
    seen = [(item, helper()) async for item in steps()]
    return seen, helper(), request in copy_context()


async def of_a_closure():
    first = await use_hidden("set there"), hidden.get()
    hidden.set("set here")
    return first, await use_hidden(1), hidden.get()


comparing.compare(
    *(defaults, visible, changed, nested, in_tasks, streams, of_a_closure),
)
