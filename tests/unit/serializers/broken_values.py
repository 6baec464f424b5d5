"""Serializers that lose something of values, share it, or hide that they cannot take it."""

from __future__ import annotations

import pickle
from io import BytesIO
from typing import Any

from unit.serializers.broken import Broken, Sound
from wool.abc import Payload, Reduce


class TestTurnsTuplesIntoLists(Broken):
    caught_by = ("test_plain_values",)

    class Serializer(Sound):
        def loads(self, payload: Payload) -> Any:
            value = super().loads(payload)
            return list(value) if type(value) is tuple else value


class TestForgetsWhatIsTheSame(Broken):
    """As with pickle's `fast` mode, or with JSON."""

    caught_by = ("test_what_is_the_same_stays_the_same", "test_recursive_values")

    class Serializer(Sound):
        def pickle(self, file: BytesIO, in_band: Any, reduce: Reduce, value: Any) -> None:
            pickler = self.Pickler(file, 5, in_band)
            pickler.reduce, pickler.fast = reduce, True
            pickler.dump(value)


class TestKeepsItsMemo(Broken):
    """One pickler for all: later payloads refer to earlier ones."""

    caught_by = ("test_payloads_share_nothing", "test_nothing_is_kept")

    class Serializer(Sound):
        def __init__(self) -> None:
            self.memo: Any = {}

        def pickle(self, file: BytesIO, in_band: Any, reduce: Reduce, value: Any) -> None:
            pickler = self.Pickler(file, 5, in_band)
            pickler.reduce, pickler.memo = reduce, self.memo
            pickler.dump(value)
            self.memo = pickler.memo.copy()


class TestPassesThroughReferences(Broken):
    """As if everybody lived in this process."""

    caught_by = ("test_nothing_is_kept", "test_payloads_share_nothing", "test_another_process")

    class Serializer(Sound):
        values: list[Any] = []

        def dumps(self, value: Any, reduce: Reduce) -> Payload:
            super().dumps(value, reduce)
            self.values.append(value)
            return Payload(str(len(self.values) - 1).encode())

        def loads(self, payload: Payload) -> Any:
            return self.values[int(bytes(payload.head))]


class TestPicklesByReference(Broken):
    caught_by = ("test_functions_by_value",)

    class Serializer(Sound):
        class Pickler(pickle.Pickler):  # type: ignore[assignment]
            reduce: Reduce

            def reducer_override(self, obj: Any) -> Any:
                return self.reduce(obj)


class TestRefusesLongValues(Broken):
    caught_by = ("test_huge_values",)

    class Serializer(Sound):
        def finish(self, payload: Payload) -> Payload:
            if len(payload.head) > 1 << 22:
                raise ValueError("too long")
            return payload


class TestHidesFailures(Broken):
    caught_by = ("test_what_cannot_be_pickled",)

    class Serializer(Sound):
        def dumps(self, value: Any, reduce: Reduce) -> Payload:
            try:
                return super().dumps(value, reduce)
            except Exception:
                return super().dumps(None, reduce)


class TestHidesErrorsOfConstructors(Broken):
    caught_by = ("test_what_cannot_be_rebuilt",)

    class Serializer(Sound):
        def loads(self, payload: Payload) -> Any:
            try:
                return super().loads(payload)
            except Exception as error:
                raise pickle.UnpicklingError("broken payload") from error


class TestAcceptsHalfAPayload(Broken):
    caught_by = ("test_payloads_that_are_cut_off",)

    class Serializer(Sound):
        def loads(self, payload: Payload) -> Any:
            try:
                return super().loads(payload)
            except (EOFError, pickle.UnpicklingError):
                return None


class TestDropsTheTail(Broken):
    """The rest of what does not fit."""

    caught_by = ("test_a_buffer_that_is_missing", "test_many_buffers")

    class Serializer(Sound):
        def finish(self, payload: Payload) -> Payload:
            return Payload(payload.head, payload.buffers[:1])

        def loads(self, payload: Payload) -> Any:
            buffers = [*payload.buffers, *[b""] * 20]
            return pickle.loads(payload.head, buffers=buffers)


class TestHasOneHookForAllThreads(Broken):
    caught_by = ("test_threads", "test_each_call_has_its_hook")

    class Serializer(Sound):
        def dumps(self, value: Any, reduce: Reduce) -> Payload:
            self.hook = reduce
            return super().dumps(value, lambda obj: self.hook(obj))
