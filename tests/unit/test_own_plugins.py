"""Plug-ins of Wool's own packages have in common: names, options, and little to import."""

from __future__ import annotations

import math
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

from wool._plugins import lookup
from wool.abc import Discovery, Transport

NAN = math.nan
PLUGINS = {
    "grpc": ({"network", "unix"}, {"grpc", "cryptography"}),
    "ws": ({"network", "uid", "unix"}, {"asyncio", "ssl", "socket", "websockets"}),
    "shm": ({"local"}, {"asyncio", "ctypes", "msgspec"}),
    "zeroconf": ({"network"}, {"asyncio", "ifaddr", "zeroconf"}),
}
"""Their capabilities, and what is imported only when they are made."""

NONSENSE: dict[tuple[str, str], list[Any]] = {
    ("grpc", "keepalive"): [0, NAN],
    ("grpc", "keepalive_timeout"): [-1.0],
    ("grpc", "max_connections"): [-1],
    ("grpc", "window"): [1000, 1 << 30],
    ("ws", "path"): ["", "wool", "/a b", "/a?b", "/ü"],
    ("ws", "health"): ["health", "/"],
    ("ws", "keepalive"): [0.5, math.inf, 32768.0],
    ("ws", "keepalive_timeout"): [0.0, 1e12],
    ("ws", "heartbeat"): [-1.0, NAN],
    ("zeroconf", "namespace"): ["", "a\nb", "x" * 101],
    ("zeroconf", "interfaces"): ["eth0", ("eth0", "")],
    ("zeroconf", "ip_version"): ["4"],
    ("zeroconf", "interval"): [0.5, NAN, math.inf],
}


@pytest.mark.parametrize("name", PLUGINS)
def test_they_are_found_and_light(name: str) -> None:
    kind = lookup.transport if name in ("grpc", "ws") else lookup.discovery
    found, module = kind(name), import_module(f"wool_{name}")
    capabilities, heavy = PLUGINS[name]
    assert (found.module, found.plugin.options) == (module.__name__, module.Options)
    assert found.plugin.capabilities == capabilities
    assert isinstance(found.make(module.Options()), (Discovery, Transport))
    code = f"import sys, wool_{name}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [(*which, value) for which, values in NONSENSE.items() for value in values],
)
def test_options_that_make_no_sense(name: str, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        import_module(f"wool_{name}").Options(**{option: value})
