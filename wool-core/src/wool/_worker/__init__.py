"""A worker: from a connection to user code, on a thread of its own."""

from wool import _msgspec as _msgspec
