"""Values as bytes, and back: exceptions, context variables and live objects among them."""

from wool import _msgspec as _msgspec
