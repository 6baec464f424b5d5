"""The serializer `cloudpickle`, the default one: pickle, plus functions and classes by value."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from types import CellType, FunctionType
from typing import Any, cast

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
        pickler.cells = {}
        pickler.dump(value)
        return Payload(file.getvalue(), buffers)

    def loads(self, payload: Payload) -> Any:
        return pickle.loads(payload.head, buffers=payload.buffers)


def _pickler_class(base: Any) -> Any:
    """Makes the pickler's class; cloudpickle's own reducers answer what Wool leaves to them."""
    inherited = base.reducer_override

    class WoolPickler(base):
        reduce: Reduce
        cells: dict[int, CellType]

        def reducer_override(self, obj: Any) -> Any:
            reduced = self.reduce(obj)
            if reduced is not NotImplemented:
                return reduced
            reduced = inherited(self, obj)
            if type(obj) is FunctionType and isinstance(reduced, tuple):
                return _complete(obj, cast("tuple[Any, ...]", reduced), self.cells)
            return reduced

    return WoolPickler


def _complete(
    function: FunctionType, reduced: tuple[Any, ...], cells: dict[int, CellType]
) -> tuple[Any, ...]:
    """Adds to what cloudpickle makes of a function by value: it leaves out type parameters, and has
    no two functions share a variable that they close over.

    Args:
        cells: the empty ones that stand for variables until all of the value has been made.
    """
    make, (*arguments, _), (attributes, slots), *rest = reduced
    if parameters := getattr(function, "__type_params__", ()):  # since Python 3.12
        slots = {**slots, "__type_params__": parameters}
    closure = function.__closure__ and tuple(
        cells.setdefault(id(cell), CellType()) for cell in function.__closure__
    )
    return make, (*arguments, closure), (attributes, slots), *rest


def make(options: Options) -> Serializer:
    return CloudpickleSerializer()


@hookimpl
def wool_serializers() -> Iterable[SerializerPlugin]:
    yield SerializerPlugin(name="cloudpickle", api=API, options=Options, factory=make)
