"""Calling: what it takes to have a call run on a worker, and to know what became of it."""

from wool import _msgspec as _msgspec
