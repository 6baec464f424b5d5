"""Async generators and context managers of `__main__`, and cancellation."""

import asyncio
import contextlib
import os
import tempfile

import comparing

import wool

directory = tempfile.TemporaryDirectory()


class Stop(Exception):
    pass


@wool.routine
async def averaging():
    total = n = 0
    average = None
    while True:
        try:
            value = yield average
        except Stop:
            total = n = 0
            average = "reset"
        else:
            total += value
            n += 1
            average = total / n


@contextlib.asynccontextmanager
@wool.routine
async def managed(path):
    note(path, "enter")
    try:
        yield os.path.basename(path)
    finally:
        await asyncio.sleep(0)
        note(path, "exit")


def note(path, line):
    with open(path, "a") as file:
        file.write(line + "\n")


def notes(path):
    try:
        with open(path) as file:
            return file.read().split()
    except FileNotFoundError:
        return []


async def noted(path, line):
    async with asyncio.timeout(30):
        while line not in notes(path):
            await asyncio.sleep(0.001)


@contextlib.contextmanager
def new_path(name):
    path = os.path.join(directory.name, name)
    try:
        yield path
    finally:
        if os.path.exists(path):
            os.unlink(path)


@wool.routine
async def hang(path):
    note(path, "started")
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        note(path, "finally")


@wool.routine
async def leaves(depth):
    if depth:
        for _ in range(2):
            async for leaf in leaves(depth - 1):
                yield leaf
    else:
        yield "leaf"


async def sending_and_throwing():
    stream = averaging()
    seen = [await anext(stream), await stream.asend(10), await stream.asend(20)]
    seen += [await stream.athrow(Stop()), await stream.asend(4)]
    error = Stop("out")
    await stream.aclose()
    try:
        await stream.asend(1)
    except StopAsyncIteration:
        seen.append("closed")
    return seen, error.args


async def managing():
    with new_path("managed") as path:
        async with managed(path) as name:
            during = notes(path)
        error = Stop("body")
        same = None
        try:
            async with managed(path):
                raise error
        except Stop as raised:
            same = raised is error
        return name, during, notes(path), same


async def cancelling():
    with new_path("hang") as path:
        task = asyncio.create_task(hang(path))
        await noted(path, "started")
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled(), notes(path)


async def timing_out():
    with new_path("hang") as path:
        try:
            async with asyncio.timeout(None) as timeout, asyncio.TaskGroup() as group:

                async def expire():
                    await noted(path, "started")
                    timeout.reschedule(asyncio.get_running_loop().time())

                group.create_task(expire())
                await hang(path)
        except TimeoutError:
            return notes(path)


async def recursing():
    return [leaf async for leaf in leaves(3)]


async def misusing():
    await averaging().asend(1)


comparing.compare(sending_and_throwing, managing, cancelling, timing_out, recursing, misusing)
directory.cleanup()
