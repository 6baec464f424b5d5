"""What the two sides of a connection share: values, results and live objects on their way."""

from wool import _msgspec as _msgspec
