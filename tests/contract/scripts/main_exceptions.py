"""Exceptions of `__main__`: caught by the same class, with all that hangs on them."""

import asyncio
import traceback

import comparing

import wool


class Failure(Exception):
    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class Child(Failure, KeyError):
    pass


class Fatal(BaseException):
    __slots__ = ("detail",)

    def __init__(self, detail):
        self.detail = detail


def deeper(code):
    raise Failure(code=code)


@wool.routine
async def fail(code):
    deeper(code)


@wool.routine
async def fail_with(make):
    raise make()


@wool.routine
async def chain():
    try:
        await fail(1)
    except Failure as error:
        error.add_note("noted")
        raise Child(code=2) from error


@wool.routine
async def group():
    raise ExceptionGroup("several", [Failure(code=1), Child(code=2), ValueError(3)])


@wool.routine
async def stream():
    try:
        yield 1
        yield 2
    except Failure as error:
        yield error.code
    raise Fatal("end of the stream")


async def caught_by_class():
    try:
        await fail(7)
    except Failure as error:
        return type(error) is Failure, error.code, error.args


async def attributes():
    try:
        await fail_with(lambda: Fatal([1]))
    except Fatal as error:
        return type(error) is Fatal, error.detail


async def chained():
    try:
        await chain()
    except KeyError as error:
        cause = error.__cause__
        return type(error) is Child, error.code, type(cause) is Failure, cause.code, cause.__notes__


async def plainly_chained():
    await chain()


async def grouped():
    seen = []
    try:
        await group()
    except* Child as part:
        seen.append([e.code for e in part.exceptions])
    except* Failure as part:
        seen.append([type(e) is Failure for e in part.exceptions])
    except* ValueError as part:
        seen.append(part.message)
    return seen


async def plainly_grouped():
    await group()


async def thrown():
    items = stream()
    thrown_in = Failure(code=5)
    seen = [await anext(items), await items.athrow(thrown_in)]
    try:
        await anext(items)
    except Fatal as error:
        seen.append(error.detail)
    passing = stream()
    await anext(passing)
    error = LookupError("passing")
    try:
        await passing.athrow(error)
    except LookupError as raised:
        seen.append(raised is error)
    return seen


async def traced():
    try:
        await fail(1)
    except Failure as error:
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        text = "".join(traceback.format_exception(error))
        return names[-2:], text.splitlines()[-1], "/wool/" in text


async def odd():
    seen = []
    for make in (
        lambda: SystemExit(3),
        lambda: KeyboardInterrupt(),
        lambda: StopIteration(1),
        lambda: StopAsyncIteration(2),
        lambda: GeneratorExit(),
        lambda: asyncio.CancelledError("c"),
    ):
        try:
            await fail_with(make)
        except BaseException as error:
            seen.append(comparing.describe(error))
    return seen


comparing.compare(
    caught_by_class,
    attributes,
    chained,
    plainly_chained,
    grouped,
    plainly_grouped,
    thrown,
    traced,
    odd,
)
