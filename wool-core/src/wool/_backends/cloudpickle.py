"""The serializer `cloudpickle`, the default one: pickle, plus functions and classes by value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wool._backends._pickling import Options, PickleSerializer
from wool.abc import Reduce, Serializer
from wool.plugins import API, SerializerPlugin, hookimpl


class CloudpickleSerializer(PickleSerializer):
    """Pickles with cloudpickle."""

    def __init__(self) -> None:
        import cloudpickle  # pyright: ignore[reportMissingTypeStubs]

        super().__init__(_pickler_class(cloudpickle.Pickler))


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
