"""Serializers that copy buffers, mix them up, or share them; and some that ask the hook wrongly."""

from __future__ import annotations

import pickle
from io import BytesIO
from typing import Any

from unit.serializers.broken import LARGE, Broken, Pickler, Sound
from wool.abc import Payload, Reduce


class TestKeepsBuffersInBand(Broken):
    caught_by = ("test_large_buffers_stay_out_of_band",)

    class Serializer(Sound):
        def is_large(self, view: memoryview) -> bool:
            return False


class TestIsLateToLeaveTheBand(Broken):
    caught_by = ("test_large_buffers_stay_out_of_band[bytes-65536]",)

    class Serializer(Sound):
        def is_large(self, view: memoryview) -> bool:
            return view.nbytes > LARGE


class TestCopiesWhenItDumps(Broken):
    caught_by = ("test_dumps_does_not_copy",)

    class Serializer(Sound):
        def finish(self, payload: Payload) -> Payload:
            return Payload(payload.head, [bytes(buffer) for buffer in payload.buffers])


class TestCopiesWhenItLoads(Broken):
    caught_by = ("test_loads_does_not_copy",)

    class Serializer(Sound):
        def loads(self, payload: Payload) -> Any:
            return super().loads(Payload(payload.head, [bytearray(b) for b in payload.buffers]))


class TestMakesBuffersReadOnly(Broken):
    caught_by = ("test_whether_they_can_be_written",)

    class Serializer(Sound):
        def loads(self, payload: Payload) -> Any:
            views = [memoryview(buffer).toreadonly() for buffer in payload.buffers]
            return super().loads(Payload(payload.head, views))


class Careless(pickle._Unpickler):  # type: ignore[name-defined]
    """Does not mind which buffers are read-only."""

    dispatch = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]
    dispatch[pickle.READONLY_BUFFER[0]] = lambda self: None


class TestMixesUpBuffers(Broken):
    caught_by = ("test_many_buffers",)

    class Serializer(Sound):
        def finish(self, payload: Payload) -> Payload:
            return Payload(payload.head, payload.buffers[::-1])


class TestSharesBytearrays(Broken):
    """Small values are not pickled, but looked up."""

    caught_by = ("test_nothing_is_shared",)

    class Serializer(Sound):
        class Pickler(Pickler):
            def persistent_id(self, obj: Any) -> Any:
                return SHARED.setdefault(id(obj), obj) and id(obj) if is_shared(obj) else None

        def loads(self, payload: Payload) -> Any:
            class Unpickler(pickle.Unpickler):
                def persistent_load(self, key: int) -> Any:
                    return SHARED[key]

            return Unpickler(BytesIO(payload.head), buffers=payload.buffers).load()


SHARED: dict[int, Any] = {}


def is_shared(obj: Any) -> bool:
    return type(obj) is bytearray and bool(obj)


class TestTakesArraysByProtocolFour(Broken):
    caught_by = ("test_numpy_arrays",)

    class Serializer(Sound):
        class Pickler(Pickler):
            def asked(self, obj: Any) -> Any:
                reduced = super().asked(obj)
                is_array = type(obj).__name__ == "ndarray" and reduced is NotImplemented
                return obj.__reduce_ex__(4) if is_array else reduced


class TestCutsGapsWrongly(Broken):
    caught_by = ("test_buffers_that_are_not_contiguous",)

    class Serializer(Sound):
        class Pickler(Pickler):
            def asked(self, obj: Any) -> Any:
                from wool.testing._serializer.base import Holder

                if type(obj) is Holder and not memoryview(obj.data).contiguous:
                    return Holder, (obj.data.obj[: obj.data.nbytes],)
                return super().asked(obj)


# The hook


class TestIgnoresTheHook(Broken):
    caught_by = ("test_the_hook_is_asked_at_every_depth[by itself]",)

    class Serializer(Sound):
        class Pickler(Pickler):
            def asked(self, obj: Any) -> Any:
                return NotImplemented


class TestAsksAtTheTopAlone(Broken):
    caught_by = ("test_the_hook_is_asked_at_every_depth[in an attribute]",)

    class Serializer(Sound):
        class Pickler(Pickler):
            top = True

            def asked(self, obj: Any) -> Any:
                top, self.top = self.top, False
                return super().asked(obj) if top else NotImplemented


class TestAsksForInstancesAlone(Broken):
    caught_by = ("test_the_hook_is_asked_for_all_kinds",)

    class Serializer(Sound):
        class Pickler(Pickler):
            def asked(self, obj: Any) -> Any:
                return NotImplemented if isinstance(obj, type) else super().asked(obj)


class TestAsksOnlyWhereItFails(Broken):
    caught_by = ("test_errors_of_the_hook", "test_reductions_of_every_length")

    class Serializer(Sound):
        def dumps(self, value: Any, reduce: Reduce) -> Payload:
            try:
                return super().dumps(value, lambda obj: NotImplemented)
            except Exception:
                return super().dumps(value, reduce)


class TestAsksForPlainValues(Broken):
    caught_by = ("test_the_hook_is_not_asked_for_plain_values",)

    class Serializer(Sound):
        def dumps(self, value: Any, reduce: Reduce) -> Payload:
            for part in value if isinstance(value, list) else ():
                reduce(part)
            return super().dumps(value, reduce)


class TestAsksTwice(Broken):
    caught_by = ("test_the_hook_is_asked_once_for_an_object",)

    class Serializer(Sound):
        class Pickler(Pickler):
            def asked(self, obj: Any) -> Any:
                super().asked(obj)
                return super().asked(obj)


class TestLeavesReductionsAlone(Broken):
    """What the hook returns is pickled beforehand, without the hook."""

    caught_by = ("test_the_hook_is_asked_for_what_it_returns",)

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
