"""What goes wrong: values that cannot be sent, payloads that are cut off, threads, processes."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from wool.abc import Payload
from wool.testing._kit import compare, remedy
from wool.testing._process import Process
from wool.testing._serializer.base import LARGE, Base, Boom, Holder, Thing, Trip, raw
from wool.testing._serializer.reducing import Special, stand_in


class Raises:
    """Cannot be pickled; says so in its own way."""

    def __reduce__(self) -> Any:
        raise Boom("cannot be pickled")


class RaisesLater:
    """Can be pickled, and fails when it is rebuilt."""

    def __reduce__(self) -> Any:
        return explode, ()


def explode() -> None:
    """Fails."""
    raise Boom("cannot be rebuilt")


def unpicklable(name: str) -> Any:
    """Something that stays where it is."""
    if name == "generator":
        return (number for number in range(3))
    return Raises()


class Faults(Base):
    """Part of `SerializerSuite`."""

    @remedy("Raise what the library raises, an Exception; Wool says which argument it was.")
    @pytest.mark.parametrize("name", ["generator", "object that raises"])
    def test_what_cannot_be_pickled(self, trip: Trip, name: str) -> None:
        """Is an exception, at any depth; the next value is none the worse for it."""
        one = unpicklable(name)
        for value in (one, [1, {"a": Thing((2, one))}]):
            with pytest.raises(Exception) as caught:  # noqa: PT011
                trip.dumps(value)
            if name == "object that raises":
                assert isinstance(caught.value, Boom) or "cannot be pickled" in str(caught.value)
            assert trip([Thing(name)]) == [Thing(name)]

    @remedy("Let errors of constructors pass; they are the user's.")
    def test_what_cannot_be_rebuilt(self, trip: Trip) -> None:
        """What a value raises as it is rebuilt gets out, and does no harm."""
        payload = trip.dumps([Thing(1), RaisesLater()])
        for _ in range(2):
            with pytest.raises(Boom, match="cannot be rebuilt"):
                trip.loads(payload)
            assert trip([Thing(2)]) == [Thing(2)]

    @remedy("Read no further than the payload goes, and raise an Exception if that is too early.")
    def test_payloads_that_are_cut_off(self, trip: Trip) -> None:
        """A head that is cut off anywhere is an exception, never a value."""
        value = [Thing("first"), {"text": "x" * 300}, tuple(range(50)), Holder(bytes(LARGE))]
        payload = trip.dumps(value)
        head = bytes(raw(payload.head))
        for size in sorted({*range(0, len(head), max(1, len(head) // 100)), len(head) - 1}):
            try:
                got = trip.loads(Payload(head[:size], payload.buffers))
            except Exception:
                continue
            pytest.fail(f"{size} bytes of {len(head)} make a value: {got!r}")
        assert trip.loads(payload)[:3] == value[:3]

    @remedy("Share nothing between calls: make the pickler, and all it needs, for each of them.")
    def test_threads(self, trip: Trip) -> None:
        """Several threads serialize at once, each with its own values, hooks and buffers."""
        start = threading.Barrier(8)

        def work(number: int) -> None:
            def reduce(obj: Any) -> Any:
                time.sleep(0)  # others may go on
                if isinstance(obj, Special):
                    return stand_in, (str(number),)
                return NotImplemented

            start.wait(self.patience)
            for turn in range(20):
                data = bytes([number, turn]) * (LARGE // 2)
                value = [Special(), Thing([number, turn]), Holder(data), [Special(), Special()]]
                got = trip(value, reduce)
                mine = ("stand-in", str(number))
                wanted = [mine, Thing([number, turn]), data, [mine] * 2]
                compare([*got[:2], bytes(got[2].data), got[3]], wanted)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))

    @remedy("Put all into the payload that rebuilding takes; nothing may stay in this process.")
    def test_another_process(self, trip: Trip) -> None:
        """Another process rebuilds what this one has sent, and the other way round."""
        factor = 3
        triple: Callable[[int], int] = lambda number: factor * number  # noqa: E731
        function: Callable[[int], int] = triple if self.by_value else abs
        value = [Thing("there"), Holder(bytes(LARGE)), [1.5, "ü", None], function]
        payload = asyncio.run(self._elsewhere(trip.dumps(value)))
        got = trip.serializer.loads(payload)
        assert got == [Thing("there"), LARGE, [1.5, "ü", None], 21 if self.by_value else 7]

    async def _elsewhere(self, payload: Payload) -> Payload:
        name = "wool.testing._serializer.peer"
        async with Process(self, name, self.patience) as process:
            process.say(line_of(payload))
            return payload_of(await process.line())


def line_of(payload: Payload) -> str:
    """A payload as a line of text."""
    parts = (payload.head, *payload.buffers)
    return " ".join(base64.b64encode(raw(part)).decode() for part in parts)


def payload_of(line: str) -> Payload:
    """The payload of a line of text."""
    head, *buffers = map(base64.b64decode, line.split(" "))
    return Payload(head, buffers)
