"""Three ways to pass things: by value, by description and by reference.

`python docs/examples/pipeline.py` counts words in texts. The texts are read in this process, a
worker asks for each when it needs it; between the stages data flows from worker to worker; and the
last stage calls back here.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import wool

TEXTS = ["the cat sat on the mat", "the dog sat on the cat", "no cat sat on the dog"]


async def read_texts(texts: list[str]) -> AsyncIterator[str]:
    """No routine: it could be reading a file or a connection that only this process has."""
    print("reading in this process:", os.getpid() == MAIN)
    for text in texts:
        yield text


@wool.routine
async def split(texts: AsyncIterator[str]) -> AsyncIterator[str]:
    async for text in texts:
        for word in text.split():
            yield word


@wool.routine
async def longer_than(size: int, words: AsyncIterator[str]) -> AsyncIterator[str]:
    async for word in words:
        if len(word) > size:
            yield word


@wool.routine
async def count(
    words: AsyncIterator[str], report: Callable[[str, int], Awaitable[None]]
) -> Counter[str]:
    counter: Counter[str] = Counter()
    async for word in words:
        counter[word] += 1
        if counter[word] == 3:
            await report(word, os.getpid())
    return counter


async def main() -> None:
    async def report(word: str, pid: int) -> None:
        print(f"{word!r} three times, says another process:", pid != os.getpid())

    async with wool.WorkerPool(size=2):
        texts = read_texts(TEXTS)  # by reference: a generator that is no routine
        words = longer_than(2, split(texts))  # by description: calls of routines, not yet begun
        counter = await count(words, wool.reference(report))  # by reference: it is marked
    print(sorted(counter.items()))  # by value


if __name__ == "__main__":
    MAIN = os.getpid()
    asyncio.run(main())
