"""gRPC itself, imported here and nowhere else: it comes without types."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any


def _load() -> Any:
    """Imports gRPC so that it keeps its log to itself.

    It would print every failed TLS handshake, also those of strangers, on standard error. It reads
    the variable when it is imported; processes started later shall not inherit our choice.
    """
    variable = "GRPC_VERBOSITY"
    if "grpc" in sys.modules or variable in os.environ:
        return importlib.import_module("grpc.aio")
    os.environ[variable] = "NONE"
    try:
        return importlib.import_module("grpc.aio")
    finally:
        del os.environ[variable]


aio: Any = _load()
grpc: Any = importlib.import_module("grpc")
