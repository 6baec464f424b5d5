"""Runs the cases of a script here and in a pool and compares: a module beside the scripts.

Each script is run as `__main__` in every way there is, and has no `__main__` guard.
"""

import asyncio
import sys

import wool


async def outcome(case):
    """What came of a case: its value, or what it raised."""
    try:
        return ("value", await case())
    except BaseException as error:
        return ("raised", describe(error))


def describe(error):
    if error is None:
        return None
    members = getattr(error, "exceptions", ())
    return (
        type(error),
        error.args if not members else error.message,
        [describe(member) for member in members],
        getattr(error, "__notes__", None),
        describe(error.__cause__),
        error.__suppress_context__,
    )


def compare(*cases):
    """Run cases without a pool, then in the place given on the command line."""
    place = sys.argv[1]

    async def outcomes():
        # Each in a task: what a case sets in its context is of no concern to the next.
        return {case.__name__: await asyncio.create_task(outcome(case)) for case in cases}

    async def main():
        here = await outcomes()
        if place == "local":
            there = await outcomes()
        else:
            async with wool.WorkerPool(size=2, transport=place):
                there = await outcomes()
        for name, value in here.items():
            assert there[name] == value, f"{name}: {there[name]!r}, not {value!r}"
        print(f"same {len(here)}")

    asyncio.run(main())
