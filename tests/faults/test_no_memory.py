"""A payload for which there is no memory fails its own call, whatever else came with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

import wool
from support.jobs import hold
from support.pools import opened
from support.waiting import pid_in
from wool._protocol import transfer

pytestmark = pytest.mark.timeout(60)

LARGE = 4 << 20
NOTHING_LEFT = r"MemoryError: none is left\. There is too little memory: .* pieces in a stream"


def refuse(size: int) -> bytearray:
    """Stands in for what takes memory for a segment."""
    if size >= LARGE:
        raise MemoryError("none is left")
    return bytearray(size)


@wool.routine
async def starve() -> None:
    transfer.allocate = refuse


def large_object() -> Any:
    """An object of a class that has to be sent with it."""

    class Large:
        def __init__(self) -> None:
            self.data = bytearray(LARGE)

    return Large()


class Lent:
    async def large(self) -> bytearray:
        return bytearray(LARGE)


@wool.routine
async def ask(lent: Lent) -> int:
    return len(await lent.large())


class TooLarge:
    def __reduce__(self) -> Any:
        raise MemoryError("none is left")


@wool.routine
async def make_too_large(argument: Any = None) -> Any:
    return TooLarge()


@wool.routine
async def listen() -> AsyncGenerator[str, Any]:
    heard = ""
    while True:
        heard = type((yield heard)).__name__


@wool.routine
async def make() -> Any:
    return large_object()


async def ask_for_what_is_large() -> None:
    await ask(wool.reference(Lent()))


async def send_what_is_large() -> None:
    stream = listen()
    await anext(stream)
    await stream.asend(large_object())


@pytest.mark.parametrize("use", [ask_for_what_is_large, send_what_is_large])
async def test_on_the_worker(use: Any, folder: Path) -> None:
    """Calls beside it go on."""
    async with opened(1):
        await starve()
        beside = asyncio.ensure_future(hold(folder / "pid", folder / "go"))
        pid = await pid_in(folder / "pid")
        with pytest.raises(wool.SerializationError, match=NOTHING_LEFT):
            await use()
        (folder / "go").touch()
        assert await beside == pid


async def test_at_the_caller(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls beside it go on, and the code that was lost with it is had anew."""
    async with opened(1):
        beside = asyncio.ensure_future(hold(folder / "pid", folder / "go"))
        pid = await pid_in(folder / "pid")
        with monkeypatch.context() as patch:
            patch.setattr(transfer, "allocate", refuse)
            with pytest.raises(wool.SerializationError, match=NOTHING_LEFT):
                await make()
        assert type(await make()).__name__ == "Large"
        (folder / "go").touch()
        assert await beside == pid


async def test_nothing_left_to_pickle_with() -> None:
    async with opened(1):
        for call in make_too_large(), make_too_large(TooLarge()):
            with pytest.raises(wool.SerializationError, match=NOTHING_LEFT):
                await call
