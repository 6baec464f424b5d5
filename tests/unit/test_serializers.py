"""The serializers `cloudpickle` and `dill`."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pickle import PickleBuffer, PicklingError
from typing import Any

import pytest

from wool._backends import cloudpickle as cloudpickle_backend
from wool._backends import dill as dill_backend
from wool.abc import Serializer

BOUNDARY = 64 * 1024
MODULES = {"cloudpickle": cloudpickle_backend, "dill": dill_backend}
SERIALIZERS: dict[str, Serializer] = {
    name: next(iter(module.wool_serializers())).factory(module.Options())
    for name, module in MODULES.items()
}
each_serializer = pytest.mark.parametrize("serializer", SERIALIZERS.values(), ids=SERIALIZERS)


def leave(obj: Any) -> Any:
    return NotImplemented


class Buffers:
    """Holds bytes and hands them to the pickler as a buffer."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Buffers, (PickleBuffer(self.data),)


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


def test_the_modules_do_not_import_the_libraries() -> None:
    code = """
        import sys, wool._backends.cloudpickle as c, wool._backends.dill as d
        assert not {"cloudpickle", "dill"} & set(sys.modules)
        c.make(c.Options())
        assert "cloudpickle" in sys.modules and "dill" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


@each_serializer
def test_the_pickler_refuses_buffers_that_are_not_contiguous(serializer: Serializer) -> None:
    holder = Buffers(memoryview(bytearray(BOUNDARY * 4))[::2])
    with pytest.raises((PicklingError, BufferError)):
        serializer.dumps(holder, leave)


@each_serializer
def test_errors_of_reduce_and_of_the_library_pass(serializer: Serializer) -> None:
    def reduce(obj: Any) -> Any:
        raise LookupError("not this one")

    with pytest.raises(LookupError, match="not this one"):
        serializer.dumps(Point(1), reduce)
    with pytest.raises(TypeError):
        serializer.dumps((i for i in range(3)), leave)


@each_serializer
def test_an_instance_of_main_keeps_the_class_it_came_with(serializer: Serializer) -> None:
    main = sys.modules["__main__"]
    sent = type("Sent", (), {"__module__": "__main__", "origin": "sender"})
    payload = serializer.dumps(sent(), leave)
    main.Sent = type("Sent", (), {"__module__": "__main__", "origin": "receiver"})  # type: ignore[attr-defined]
    try:
        assert serializer.loads(payload).origin == "sender"
    finally:
        del main.Sent  # type: ignore[attr-defined]


def test_dill_settings_play_no_part() -> None:
    import dill

    serializer = SERIALIZERS["dill"]
    before = dict(dill.settings)
    dill.settings.update(recurse=False, byref=True, protocol=2)
    try:
        payload = serializer.dumps(Buffers(bytes(BOUNDARY)), leave)
        assert len(payload.buffers) == 1
    finally:
        dill.settings.update(before)
    assert dict(dill.settings) == before
