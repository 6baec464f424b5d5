"""The example everyone starts from: no guard, and what it prints is printed once."""

import asyncio
import sys

import wool

print("imported")


@wool.routine
async def add(x: int, y: int) -> int:
    return x + y


@wool.routine
async def search(query: str):
    lo, hi = 0, 25
    while lo <= hi:
        mid = (lo + hi) // 2
        hint = yield chr(97 + mid)
        if hint == "higher":
            lo = mid + 1
        elif hint == "lower":
            hi = mid - 1
        else:
            return


async def work():
    stream = search("q")
    guess, guesses = await anext(stream), 1
    while guess != "q":
        guess = await stream.asend("higher" if guess < "q" else "lower")
        guesses += 1
    await stream.aclose()
    return await add(1, 2), guesses


async def main():
    if sys.argv[1] == "local":
        result = await work()
    else:
        async with wool.WorkerPool(size=2, transport=sys.argv[1]):
            result = await work()
    assert result == (3, 5), result


asyncio.run(main())
print("same 2")
