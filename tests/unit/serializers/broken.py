"""Serializers with one defect each, made of cloudpickle's."""

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
