"""Serializers and discoveries that come with wool-core."""

from wool import _msgspec as _msgspec
