"""Sentinels of `__main__`: code that compares with `is` goes on being right."""

import dataclasses

import comparing

import wool

MISSING = object()


class Unset:
    def __repr__(self):
        return "UNSET"


UNSET = Unset()


@wool.routine
async def first(x=MISSING, *, y=UNSET):
    return x is MISSING, y is UNSET


@wool.routine
async def second(x=MISSING, *, y=UNSET):
    return x is MISSING, y is UNSET


def helper(x=MISSING, *, y=UNSET):
    return x is MISSING, y is UNSET


@wool.routine
async def third(x=MISSING):
    return x is MISSING, helper(), helper(x), helper(1, y=UNSET)


class Table:
    missing = MISSING

    def get(self, default=UNSET):
        return self.missing is MISSING, default is UNSET


@wool.routine
async def fourth():
    return Table().get(), Table().get(UNSET)


@wool.routine
async def again(n, found=MISSING):
    return found is MISSING if n == 0 else await again(n - 1)


@wool.routine
async def of_a_module(x=dataclasses.MISSING, *, y=dataclasses.MISSING):
    return x is dataclasses.MISSING, y is dataclasses.field().default


async def of_the_standard_library():
    return await of_a_module(), await of_a_module(1)


async def one_after_another():
    return [await f() for f in (first, second, third, fourth, second, first)]


async def of_an_enclosing_function():
    nothing = object()

    def make():
        @wool.routine
        async def inner(x=nothing):
            return x is nothing

        return inner

    return await make()(), await make()(), await make()(1)


async def in_a_routine_that_calls_itself():
    return await again(3)


comparing.compare(
    one_after_another,
    of_the_standard_library,
    of_an_enclosing_function,
    in_a_routine_that_calls_itself,
)
