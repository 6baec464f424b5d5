"""Functions, classes and modules on their way to other processes."""

from wool import _msgspec as _msgspec
