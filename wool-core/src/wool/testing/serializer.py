"""The conformance kit of serializers."""

from __future__ import annotations

import pytest

from wool.testing._serializer.buffers import Buffers
from wool.testing._serializer.faults import Faults
from wool.testing._serializer.reducing import Reducing
from wool.testing._serializer.use import Use
from wool.testing._serializer.values import Values

__all__ = ["SerializerSuite"]


@pytest.mark.filterwarnings("error")
class SerializerSuite(Values, Buffers, Reducing, Faults, Use):
    """Tests what `wool.abc` promises of serializers; subclass it in a test module.

    Override `serializer`. Another process makes its own one.

    Attributes:
        by_value: whether functions and classes travel that the other side cannot import.
        patience: seconds that another process may take before it counts as hanging.
    """
