"""Help for tests: of code that uses Wool, and of back-ends.

`Faults` breaks connections and kills workers. The conformance kits are classes of tests for pytest:
subclass one in a test module, and override a few methods; they need the extra `testing`. The
fixtures `wool_pool`, `wool_pool_on_each_transport` and `wool_faults` are there wherever pytest is.

Names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wool.testing.discovery import AddressDiscoverySuite, DiscoverySuite
    from wool.testing.faults import Faults
    from wool.testing.launcher import LauncherSuite
    from wool.testing.serializer import SerializerSuite
    from wool.testing.transport import TransportSuite, throwaway_tls

__all__ = [
    "AddressDiscoverySuite",
    "DiscoverySuite",
    "Faults",
    "LauncherSuite",
    "SerializerSuite",
    "TransportSuite",
    "throwaway_tls",
]

_KITS = {
    "AddressDiscoverySuite": "wool.testing.discovery",
    "DiscoverySuite": "wool.testing.discovery",
    "LauncherSuite": "wool.testing.launcher",
    "SerializerSuite": "wool.testing.serializer",
    "TransportSuite": "wool.testing.transport",
    "throwaway_tls": "wool.testing.transport",
}


def __getattr__(name: str) -> Any:
    if name == "Faults":
        value = import_module("wool.testing.faults").Faults
    elif name in _KITS:
        value = getattr(_load(_KITS[name]), name)
    else:
        raise AttributeError(f"module 'wool.testing' has no attribute {name!r}")
    globals()[name] = value
    return value


def _load(module: str) -> Any:
    try:
        import pytest

        pytest.register_assert_rewrite(module)
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f'wool.testing needs {error.name}: pip install "wool-core[testing]"', name=error.name
        ) from None


def __dir__() -> list[str]:
    return list(__all__)
