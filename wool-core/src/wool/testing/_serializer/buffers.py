"""Buffers: out of band where they are large, not copied on the way, and nobody else's."""

from __future__ import annotations

from typing import Any

import pytest

from wool.abc import Payload
from wool.testing._kit import compare, remedy
from wool.testing._serializer.base import LARGE, Base, Holder, Trip, leave, raw, received


def pattern(size: int, start: int = 0) -> bytearray:
    """Bytes that differ."""
    return bytearray((start + number) % 251 for number in range(size))


class Buffers(Base):
    """Part of `SerializerSuite`."""

    @remedy("Give the pickler a `buffer_callback` that returns false for buffers of 64 KiB.")
    @pytest.mark.parametrize("size", [LARGE, LARGE + 1, 1 << 20])
    @pytest.mark.parametrize("kind", [bytes, bytearray])
    def test_large_buffers_stay_out_of_band(self, trip: Trip, size: int, kind: Any) -> None:
        """Buffers of 64 KiB and more that support it are no part of the head."""
        data = pattern(size)
        payload = trip.dumps({"deep": [Holder(kind(data))]})
        sizes = [raw(buffer).nbytes for buffer in payload.buffers]
        assert sizes == [size], f"buffers of {sizes} bytes are out of band, not one of {size}"
        assert raw(payload.head).nbytes < 2000, "the buffer is in the head"
        compare(bytes(trip.loads(payload)["deep"][0].data), data)

    @remedy("Keep buffers of less than 64 KiB in the head: a copy of them costs less.")
    @pytest.mark.parametrize("size", [0, 1, 1000, LARGE - 1])
    def test_small_buffers(self, trip: Trip, size: int) -> None:
        """Small ones arrive all the same, in whichever way."""
        data = pattern(size)
        compare([bytes(got.data) for got in trip([Holder(data), Holder(bytes(data))])], [data] * 2)

    @remedy("Put the buffers into the payload in the order in which the head refers to them.")
    def test_many_buffers(self, trip: Trip) -> None:
        """Many buffers, large and small, arrive where they belong."""
        parts = [pattern(LARGE * (number % 2) + number, number) for number in range(20)]
        got = trip([Holder(part) for part in parts])
        compare([bytes(one.data) for one in got], parts)

    @remedy("Put views of the value's own memory into the payload: `PickleBuffer.raw()`.")
    def test_dumps_does_not_copy(self, trip: Trip) -> None:
        """An out-of-band buffer is the memory of the value itself."""
        data = pattern(LARGE)
        payload = trip.serializer.dumps(Holder(data), leave)
        data[7] ^= 0xFF
        assert raw(payload.buffers[0])[7] == data[7], "dumps has copied the buffer"

    @remedy("Hand the payload's buffers to the unpickler as they are: `loads(…, buffers=…)`.")
    def test_loads_does_not_copy(self, trip: Trip) -> None:
        """The value that is rebuilt uses the received buffer in place."""
        payload = received(trip.dumps(Holder(pattern(LARGE))))
        got = trip.serializer.loads(payload)
        raw(payload.buffers[0])[7] ^= 0xFF
        assert raw(got.data)[7] == raw(payload.buffers[0])[7], "loads has copied the buffer"

    @remedy("Let each value have memory of its own where buffers are in the head.")
    @pytest.mark.parametrize("size", [10, LARGE])
    def test_nothing_is_shared(self, trip: Trip, size: int) -> None:
        """Who changes what has arrived changes it for nobody else."""
        data = pattern(size)
        before = bytes(data)
        payload = trip.dumps([Holder(data), data])
        one, other = trip.loads(payload), trip.loads(payload)
        raw(one[0].data)[0] = 255
        one[1][0] = 254
        kept = bytes(data) == before
        assert kept, "the sender's own buffer has changed"
        compare((bytes(other[0].data), other[1]), (before, before))
        again = trip.serializer.loads(payload)
        again[1][0] = 253
        kept = bytes(data) == before
        assert kept, "the sender's own bytearray has changed"

    @remedy("Leave it to pickle's protocol 5: it notes which buffers are read-only.")
    @pytest.mark.parametrize("size", [10, LARGE])
    @pytest.mark.parametrize("kind", [bytes, bytearray])
    def test_whether_they_can_be_written(self, trip: Trip, size: int, kind: Any) -> None:
        """What could be written to still can; what could not, cannot."""
        got = memoryview(trip(Holder(kind(pattern(size)))).data)
        assert got.readonly == (kind is bytes), f"read-only: {got.readonly}, from {kind.__name__}"

    @remedy("Refuse what is not contiguous, or copy it; `PickleBuffer.raw()` does the former.")
    def test_buffers_that_are_not_contiguous(self, trip: Trip) -> None:
        """A buffer with gaps arrives as what it shows, or is refused."""
        view = memoryview(pattern(4 * LARGE))[::2]
        try:
            got = trip(Holder(view))
        except Exception:
            compare(bytes(trip(Holder(view.tobytes())).data), view.tobytes())
        else:
            compare(bytes(got.data), view.tobytes())

    @remedy("Rebuild buffers of other shapes as bytes; only their memory is promised.")
    def test_buffers_of_numbers(self, trip: Trip) -> None:
        """What counts of a buffer is its bytes, whatever it holds and however it is shaped."""
        import array

        numbers = array.array("d", range(LARGE // 8))
        shaped = memoryview(pattern(LARGE)).cast("B", (256, LARGE // 256))
        got = trip([Holder(numbers), Holder(shaped), numbers])
        compare(bytes(raw(got[0].data)), numbers.tobytes())
        compare(bytes(raw(got[1].data)), shaped.tobytes())
        compare(got[2], numbers)

    @remedy("Use protocol 5 for arrays as well: `obj.__reduce_ex__(5)`.")
    @pytest.mark.parametrize("writable", [True, False])
    def test_numpy_arrays(self, trip: Trip, writable: bool) -> None:
        """Arrays of numpy arrive as they are, and large ones out of band."""
        numpy: Any = pytest.importorskip("numpy")
        array = numpy.arange(30_000, dtype="float64").reshape(100, 300)
        array.flags.writeable = writable
        payload = trip.dumps({"a": array, "view": array.T, "gaps": array[:, ::7]})
        assert raw(payload.head).nbytes < 100_000
        got = trip.loads(payload)
        for name, value in (("a", array), ("view", array.T), ("gaps", array[:, ::7])):
            assert got[name].dtype == value.dtype
            assert numpy.array_equal(got[name], value)
        assert got["a"].flags.writeable == writable

    @remedy("Raise if the head refers to a buffer that is not there.")
    def test_a_buffer_that_is_missing(self, trip: Trip) -> None:
        """A payload without its last buffers is an error, never another value."""
        payload = received(trip.dumps([Holder(pattern(LARGE)), Holder(pattern(LARGE))]))
        for count in (0, 1):
            with pytest.raises(Exception) as caught:  # noqa: PT011
                trip.serializer.loads(Payload(payload.head, payload.buffers[:count]))
            assert isinstance(caught.value, Exception)
        whole = trip.serializer.loads(payload)
        assert [len(one.data) for one in whole] == [LARGE, LARGE]
