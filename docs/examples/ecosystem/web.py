"""FastAPI: endpoints that call routines, one pool for the application.

Run it with `uvicorn web:app`. With no pool open, as in a test that does not enter `lifespan`,
the endpoints work as well: the routines run where they are called.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse

import wool


class TooLarge(Exception):
    """It would take too long."""


@wool.routine
async def factors(n: int) -> list[int]:
    if n > 10**12:
        raise TooLarge(f"{n} has too many digits")
    found: list[int] = []
    divisor = 2
    while n > 1:
        while n % divisor == 0:
            found.append(divisor)
            n //= divisor
        divisor += 1
    return found


@wool.routine
async def lines(count: int) -> AsyncGenerator[str]:
    for number in range(count):
        yield f"line {number} of process {os.getpid()}\n"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with wool.WorkerPool(size=2):
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/factors/{n}")
async def get_factors(n: int) -> list[int]:
    try:
        return await factors(n)
    except TooLarge as error:
        raise HTTPException(422, str(error)) from error


@app.get("/lines/{count}")
async def get_lines(count: int) -> StreamingResponse:
    return StreamingResponse(lines(count), media_type="text/plain")
