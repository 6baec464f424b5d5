"""Both ends of a connection: calls, values and live objects on their way."""

from wool import _msgspec as _msgspec
