"""Modules as they travel: their source, and which other modules it imports."""

from __future__ import annotations

import dis
import marshal
import sys
import tokenize
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.machinery import ModuleSpec
from importlib.util import resolve_name
from types import CodeType
from typing import Any

from msgspec import Struct

_IMPORT = dis.opmap["IMPORT_NAME"]

MODULE = b"module:"
"""Keys that begin so stand for a module of this name, whatever its source is now."""


def module_key(name: str) -> bytes:
    """Returns the key under which a module is asked for."""
    return MODULE + name.encode()


class Source(Struct, frozen=True):
    """A module as it travels.

    Attributes:
        name: in full.
        package: whether it may have modules in it.
        filename: of its file at home; None for a package without `__init__.py`.
        text: the source.
        needs: the modules that it imports, or may, and that travel as well.
        edition: how many times it has been loaded anew at home, where its text may be the same.
    """

    name: str
    package: bool
    filename: str | None
    text: str
    needs: tuple[str, ...] = ()
    edition: int = 0

    def dump(self) -> bytes:
        """Returns it as bytes."""
        return marshal.dumps(
            (self.name, self.package, self.filename, self.text, self.needs, self.edition)
        )

    @classmethod
    def load(cls, data: bytes) -> Source:
        """Makes it from bytes."""
        return cls(*marshal.loads(data))

    def code(self) -> CodeType:
        """Compiles it.

        Raises:
            SyntaxError: that is what it is.
        """
        return compile(self.text, self.filename or f"<{self.name}>", "exec", dont_inherit=True)


def read_text(spec: ModuleSpec) -> str | None:
    """Returns the source of a module, None if it has none."""
    if spec.origin is None:
        return ""
    get = getattr(spec.loader, "get_source", None)
    try:
        if get is not None:
            return get(spec.name)
        # A test runner's loader, for one, does not say.
        if spec.origin.endswith(".py"):
            with tokenize.open(spec.origin) as file:
                return file.read()
    except (ImportError, OSError, SyntaxError, UnicodeDecodeError):
        pass
    return None


def mentioned(code: CodeType, package: str) -> Iterator[str]:
    """Yields the names of modules that code may import, wherever in it that is.

    Some are names of other things in a module: `from a import b` yields `a` and `a.b`. A string
    that is the name of a module in use counts too, for the sake of `import_module`.

    Args:
        package: what relative imports are relative to.
    """
    if _IMPORT in code.co_code:
        yield from _imported(code, package)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from mentioned(constant, package)
        elif isinstance(constant, str) and constant in sys.modules:
            yield constant


def _imported(code: CodeType, package: str) -> Iterator[str]:
    """Yields what the import statements of one code object name.

    An import is the instruction `IMPORT_NAME`, after two that load how many dots there are and the
    names after `import` in `from … import …`.
    """
    loaded: list[Any] = [0, None]
    for instruction in dis.get_instructions(code):
        if instruction.opcode in dis.hasconst or instruction.opname == "LOAD_SMALL_INT":
            loaded = [loaded[-1], instruction.argval]
        elif instruction.opname == "IMPORT_NAME":
            level, names = loaded
            with suppress(ImportError):  # there are more dots than packages
                base = resolve_name("." * level + instruction.argval, package)
                yield base
                yield from (f"{base}.{name}" for name in names or ())


def with_parents(names: Iterable[str]) -> Iterator[str]:
    """Yields names and, before each, those of the packages it is in."""
    for name in names:
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            yield ".".join(parts[:count])
