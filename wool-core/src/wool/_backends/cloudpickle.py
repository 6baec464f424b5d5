"""The serializer `cloudpickle`, the default one: pickle, plus functions and classes by value."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from wool._backends._pickling import PROTOCOL, collector, dump_plain
from wool.abc import Payload, Reduce, Serializer
from wool.plugins import API, SerializerPlugin, hookimpl


@dataclass(frozen=True, slots=True)
class Options:
    """There is nothing to choose."""


class CloudpickleSerializer(Serializer):
    """Pickles with cloudpickle. One pickler per value, so threads share nothing but the class."""

    def __init__(self) -> None:
        import cloudpickle  # pyright: ignore[reportMissingTypeStubs]

        self._pickler = _pickler_class(cloudpickle.Pickler)

    def dumps(self, value: Any, reduce: Reduce) -> Payload:
        plain = dump_plain(value)
        if plain is not None:
            return Payload(plain)
        file = BytesIO()
        buffers: list[memoryview] = []
        pickler = self._pickler(file, PROTOCOL, collector(buffers))
        pickler.reduce = reduce
        pickler.dump(value)
        return Payload(file.getvalue(), buffers)

    def loads(self, payload: Payload) -> Any:
        return pickle.loads(payload.head, buffers=payload.buffers)


def _pickler_class(base: Any) -> Any:
    """Makes the pickler's class; cloudpickle's own reducers answer what Wool leaves to them."""

    class WoolPickler(base):
        reduce: Reduce

        def reducer_override(self, obj: Any) -> Any:
            reduced = self.reduce(obj)
            return base.reducer_override(self, obj) if reduced is NotImplemented else reduced

    return WoolPickler


def make(options: Options) -> Serializer:
    return CloudpickleSerializer()


@hookimpl
def wool_serializers() -> Iterable[SerializerPlugin]:
    yield SerializerPlugin(name="cloudpickle", api=API, options=Options, factory=make)
