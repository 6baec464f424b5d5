"""Conformance kits for authors of back-ends; needs the extra `testing`.

A kit is a class of tests for pytest: subclass it in a test module, and override a few methods.
"""

from __future__ import annotations

try:
    import pytest

    pytest.register_assert_rewrite(
        "wool.testing._transport", "wool.testing._discovery", "wool.testing._serializer"
    )

    from wool.testing._transport.security import throwaway_tls
    from wool.testing.discovery import DiscoverySuite
    from wool.testing.serializer import SerializerSuite
    from wool.testing.transport import TransportSuite
except ModuleNotFoundError as _error:
    raise ImportError(
        f'wool.testing needs {_error.name}: pip install "wool-core[testing]"', name=_error.name
    ) from None

__all__ = ["DiscoverySuite", "SerializerSuite", "TransportSuite", "throwaway_tls"]
