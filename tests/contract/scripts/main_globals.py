"""Globals of `__main__`: one namespace for all functions, kept on a worker between calls."""

import asyncio
import contextlib
import sys

import wool

total = 0
names: list = []
LIMIT = 1


def helper():
    return "first"


@wool.routine
async def put(n):
    global total
    total += n
    names.append(n)
    return total


@wool.routine
async def get():
    return total, list(names)


@wool.routine
async def use():
    return helper(), LIMIT


@wool.routine
async def remember(value):
    global remembered
    remembered = value


@wool.routine
async def recall():
    return remembered  # noqa: F821


def pool():
    if sys.argv[1] == "local":
        return contextlib.nullcontext()
    return wool.WorkerPool(size=1, transport=sys.argv[1])


async def main():
    global helper, LIMIT
    seen = []
    async with pool():
        seen += [await put(1), await put(2), await get()]
        await remember("a value")
        seen.append(await recall())
        seen.append(await use())

        def helper():
            return "second"

        seen.append(await use())
        LIMIT = 2
        seen.append(await use())
    assert seen == [
        1,
        3,
        (3, [1, 2]),
        "a value",
        ("first", 1),
        ("second", 1),
        ("second", 2),
    ], seen
    print("same", len(seen))


asyncio.run(main())
