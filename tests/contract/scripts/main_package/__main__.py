"""A package run with `-m`: relative imports, also inside functions."""
# ruff: noqa: TID252

import comparing

import wool

from . import neighbour
from .neighbour import Failure, scaled


@wool.routine
async def use(x):
    from .neighbour import FACTOR

    if x < 0:
        raise Failure(x)
    return scaled(x), neighbour.scaled(x), FACTOR, __name__, __package__


async def relative_imports():
    return await use(2)


async def exceptions_of_a_neighbour():
    try:
        await use(-1)
    except Failure as error:
        return type(error) is neighbour.Failure, error.args


comparing.compare(relative_imports, exceptions_of_a_neighbour)
