"""The serializer `dill`: slower than cloudpickle, and takes more kinds of objects."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from io import BytesIO
from pickle import PickleBuffer
from typing import Any

from wool._backends._pickling import PLAIN, PROTOCOL, Options, PickleSerializer
from wool.abc import Payload, Reduce, Serializer
from wool.plugins import API, SerializerPlugin, hookimpl


class DillSerializer(PickleSerializer):
    """Pickles with dill. The settings in `dill.settings` play no part."""

    def __init__(self) -> None:
        import dill  # pyright: ignore[reportMissingTypeStubs]

        # Without `recurse`, a function of `__main__` would be sent without its globals.
        given = {"byref": False, "fmode": 0, "recurse": True}
        super().__init__(partial(_pickler_class(dill.Pickler), **given))
        self._unpickler: Any = dill.Unpickler

    def loads(self, payload: Payload) -> Any:
        # `ignore`: dill would otherwise turn the value into an instance of whatever class the
        # receiver's own `__main__` has under that name.
        unpickler = self._unpickler(BytesIO(payload.head), buffers=payload.buffers, ignore=True)
        return unpickler.load()


def _pickler_class(base: Any) -> Any:
    """Makes the pickler's class.

    dill decides by the word "dill" in a pickler's module name whether it deals with its own; the
    name of this module has it.
    """

    class WoolPickler(base):
        reduce: Reduce

        def reducer_override(self, obj: Any) -> Any:
            # dill's pickler is the one written in Python, which asks for every object.
            if type(obj) in PLAIN:
                return _tiny(obj) if type(obj) is PickleBuffer else NotImplemented
            reduced = self.reduce(obj)
            if reduced is NotImplemented and _is_array(obj):
                # dill would ask numpy for the old protocol, which copies into the stream.
                return obj.__reduce_ex__(PROTOCOL)
            return reduced

    return WoolPickler


def _tiny(buffer: PickleBuffer) -> Any:
    """Pickles up to one byte as a value: copies of it are one object, which Python's pickler
    does not expect of buffers that it takes in.
    """
    view = buffer.raw()
    if view.nbytes > 1:
        return NotImplemented
    return (bytes if view.readonly else bytearray), (view.tobytes(),)


def _is_array(value: object) -> bool:
    cls = type(value)
    return cls.__name__ == "ndarray" and cls.__module__ == "numpy"


def make(options: Options) -> Serializer:
    return DillSerializer()


@hookimpl
def wool_serializers() -> Iterable[SerializerPlugin]:
    yield SerializerPlugin(name="dill", api=API, options=Options, factory=make)
