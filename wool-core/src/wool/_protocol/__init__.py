"""The wire protocol, without any I/O."""

from wool import _msgspec as _msgspec
