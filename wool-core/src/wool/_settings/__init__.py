"""Settings: what they are, where their values come from, and which one counts."""

from wool import _msgspec as _msgspec
