"""Wool in a minute: a call and a stream, both running in a worker process.

Run it with `python docs/examples/quickstart.py`. There is no `__main__` guard: none is needed.
The name of a transport may follow, such as `ws` or `memory`; otherwise the settings say which.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from string import ascii_lowercase

import wool


@wool.routine
async def add(x: int, y: int) -> int:
    return x + y


@wool.routine
async def search(letters: str) -> AsyncGenerator[str, str | None]:
    """Guesses one of `letters`, which are in order; wants to hear "higher" or "lower"."""
    low, high = 0, len(letters) - 1
    while low <= high:
        middle = (low + high) // 2
        hint = yield letters[middle]
        if hint == "higher":
            low = middle + 1
        elif hint == "lower":
            high = middle - 1
        else:
            return


async def main() -> None:
    transport = sys.argv[1] if len(sys.argv) > 1 else None
    async with wool.WorkerPool(transport=transport):  # or the workers that WOOL_DISCOVERY finds
        print("1 + 2 =", await add(1, 2))

        secret = "q"
        print(f"Guess the letter {secret!r}: ", end="")
        guesses = search(ascii_lowercase)
        guess = await anext(guesses)
        while guess != secret:
            hint = "higher" if secret > guess else "lower"
            print(f"{guess} ({hint})", end=", ")
            guess = await guesses.asend(hint)
        print(f"{guess} (found)")
        await guesses.aclose()

    # No pool is open here, so the same routine simply runs in this process.
    print("3 + 4 =", await add(3, 4))


asyncio.run(main())
