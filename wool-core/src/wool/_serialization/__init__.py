"""Values, and the code that they need, on their way to another process and back."""

from wool import _msgspec as _msgspec
