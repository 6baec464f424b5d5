"""Serializers with one defect each, made of cloudpickle: the conformance kit finds them."""

from __future__ import annotations

import pickle
from io import BytesIO
from typing import Any

import cloudpickle

from wool.abc import Payload, Reduce, Serializer
from wool.testing import SerializerSuite

LARGE = 64 * 1024


class Pickler(cloudpickle.Pickler):
    reduce: Reduce

    def reducer_override(self, obj: Any) -> Any:
        reduced = self.asked(obj)
        return super().reducer_override(obj) if reduced is NotImplemented else reduced

    def asked(self, obj: Any) -> Any:
        return self.reduce(obj)


class Sound(Serializer):
    Pickler = Pickler

    def dumps(self, value: Any, reduce: Reduce) -> Payload:
        file, buffers = BytesIO(), []

        def in_band(buffer: pickle.PickleBuffer) -> bool:
            view = buffer.raw()
            if self.is_large(view):
                buffers.append(view)
                return False
            return True

        self.pickle(file, in_band, reduce, value)
        return self.finish(Payload(file.getvalue(), buffers))

    def pickle(self, file: BytesIO, in_band: Any, reduce: Reduce, value: Any) -> None:
        pickler = self.Pickler(file, 5, in_band)
        pickler.reduce = reduce
        pickler.dump(value)

    def is_large(self, view: memoryview) -> bool:
        return view.nbytes >= LARGE

    def finish(self, payload: Payload) -> Payload:
        return payload

    def loads(self, payload: Payload) -> Any:
        return pickle.loads(payload.head, buffers=payload.buffers)


class Broken(SerializerSuite):
    """The sound serializer, with some of its parts replaced.

    Attributes:
        caught_by: tests that must fail.
    """

    patience = 1.0
    caught_by: tuple[str, ...] = ()
    Serializer: type[Sound] = Sound

    def serializer(self) -> Serializer:
        return self.Serializer()


class TestSound(Broken):
    """The sound one, of which the broken ones are made."""

    patience = 10.0


# Values are lost, shared, or hidden -----------------------------------------------------------


class TestTurnsTuplesIntoLists(Broken):
    caught_by = ("test_plain_values",)

    class Serializer(Sound):
        def loads(self, payload: Payload) -> Any:
            value = super().loads(payload)
            return list(value) if type(value) is tuple else value


class TestForgetsWhatIsTheSame(Broken):
    """As with pickle's `fast` mode, or with JSON."""

    caught_by = ("test_identity",)

    class Serializer(Sound):
        def pickle(self, file: BytesIO, in_band: Any, reduce: Reduce, value: Any) -> None:
            pickler = self.Pickler(file, 5, in_band)
            pickler.reduce, pickler.fast = reduce, True
            pickler.dump(value)


class TestPassesThroughReferences(Broken):
    """As if everybody lived in this process."""

    caught_by = ("test_nothing_is_kept", "test_nothing_is_shared", "test_another_process")

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
    caught_by = ("test_what_cannot_be_pickled[object]",)

    class Serializer(Sound):
        def dumps(self, value: Any, reduce: Reduce) -> Payload:
            try:
                return super().dumps(value, reduce)
            except Exception:
                return super().dumps(None, reduce)


class TestAcceptsHalfAPayload(Broken):
    caught_by = ("test_payloads_that_are_cut_off",)

    class Serializer(Sound):
        def loads(self, payload: Payload) -> Any:
            try:
                return super().loads(payload)
            except (EOFError, pickle.UnpicklingError):
                return None


class TestHasOneHookForAllThreads(Broken):
    caught_by = ("test_threads",)

    class Serializer(Sound):
        def dumps(self, value: Any, reduce: Reduce) -> Payload:
            self.hook = reduce
            return super().dumps(value, lambda obj: self.hook(obj))


# Buffers are copied, mixed up or shared; the hook is asked wrongly ----------------------------


class TestIsLateToLeaveTheBand(Broken):
    caught_by = ("test_large_buffers_stay_out_of_band[bytes-65536]",)

    class Serializer(Sound):
        def is_large(self, view: memoryview) -> bool:
            return view.nbytes > LARGE


class TestCopiesWhenItDumps(Broken):
    caught_by = ("test_large_buffers_stay_out_of_band[bytearray-65536]",)

    class Serializer(Sound):
        def finish(self, payload: Payload) -> Payload:
            return Payload(payload.head, [bytes(buffer) for buffer in payload.buffers])


class TestMakesBuffersReadOnly(Broken):
    caught_by = ("test_nothing_is_shared[65536]",)

    class Serializer(Sound):
        def loads(self, payload: Payload) -> Any:
            views = [memoryview(buffer).toreadonly() for buffer in payload.buffers]
            return super().loads(Payload(payload.head, views))


class TestMixesUpBuffers(Broken):
    caught_by = ("test_many_buffers",)

    class Serializer(Sound):
        def finish(self, payload: Payload) -> Payload:
            return Payload(payload.head, payload.buffers[::-1])


class TestTakesArraysByProtocolFour(Broken):
    caught_by = ("test_numpy_arrays",)

    class Serializer(Sound):
        class Pickler(Pickler):
            def asked(self, obj: Any) -> Any:
                reduced = super().asked(obj)
                is_array = type(obj).__name__ == "ndarray" and reduced is NotImplemented
                return obj.__reduce_ex__(4) if is_array else reduced


# The hook


class TestAsksAtTheTopAlone(Broken):
    caught_by = ("test_the_hook_is_asked_at_every_depth[in an attribute]",)

    class Serializer(Sound):
        class Pickler(Pickler):
            top = True

            def asked(self, obj: Any) -> Any:
                top, self.top = self.top, False
                return super().asked(obj) if top else NotImplemented


class TestAsksForInstancesAlone(Broken):
    caught_by = ("test_what_the_hook_is_asked_for",)

    class Serializer(Sound):
        class Pickler(Pickler):
            def asked(self, obj: Any) -> Any:
                return NotImplemented if isinstance(obj, type) else super().asked(obj)


class TestLeavesReductionsAlone(Broken):
    """The result of the hook is pickled beforehand, without the hook."""

    caught_by = ("test_reductions",)

    class Serializer(Sound):
        class Pickler(Pickler):
            def asked(self, obj: Any) -> Any:
                reduced = super().asked(obj)
                if reduced is NotImplemented:
                    return reduced
                function, args, *rest = reduced
                return function, tuple(map(again, args)), *rest


def again(value: Any) -> Any:
    import cloudpickle

    return pickle.loads(cloudpickle.dumps(value))
