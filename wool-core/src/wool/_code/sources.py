"""Modules as they travel: their source, and which other modules it imports."""

from __future__ import annotations

import dis
import marshal
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import CodeType
from typing import cast

_IMPORT = dis.opmap["IMPORT_NAME"]
_SMALL = dis.opmap.get("LOAD_SMALL_INT")  # of newer versions

MODULE = b"module:"
"""Keys that begin so stand for a module of this name, whatever its source is now."""


def module_key(name: str) -> bytes:
    """Returns the key under which a module is asked for."""
    return MODULE + name.encode()


@dataclass(frozen=True, slots=True)
class Source:
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

    def code_if_valid(self) -> CodeType | None:
        """Compiles it; returns None if that cannot be done."""
        try:
            return self.code()
        except (SyntaxError, ValueError):
            return None


def read_code(spec: ModuleSpec) -> CodeType | None:
    """Returns the code of a module as it was compiled when it was imported, if that is kept."""
    get = getattr(spec.loader, "get_code", None)
    try:
        return None if get is None or spec.origin is None else get(spec.name)
    except (ImportError, OSError, SyntaxError, ValueError):
        return None


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
    loaded: list[object] = [0, None]
    argument = 0
    for place in range(0, len(code.co_code), 2):
        operation, low = code.co_code[place : place + 2]
        argument = argument << 8 | low
        if operation == dis.EXTENDED_ARG:
            continue
        if operation in dis.hasconst:
            loaded = [loaded[-1], code.co_consts[argument]]
        elif operation == _SMALL:
            loaded = [loaded[-1], argument]
        elif operation == _IMPORT:
            level, names = loaded
            base = _absolute(code.co_names[argument], package, level)
            if base:
                yield base
                if isinstance(names, tuple):
                    yield from (f"{base}.{name}" for name in cast("tuple[str, ...]", names))
        argument = 0


def _absolute(name: str, package: str, level: object) -> str:
    if not isinstance(level, int) or level == 0:
        return name
    parts = package.split(".")
    if level > len(parts):
        return ""
    return ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])


def with_parents(names: Iterable[str]) -> Iterator[str]:
    """Yields names and, before each, those of the packages it is in."""
    for name in names:
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            yield ".".join(parts[:count])
