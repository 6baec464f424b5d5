"""Context variables that travel: which do, what they are called, and their values.

What of them is sent, and when, is the business of `mirror`.
"""

from __future__ import annotations

import enum
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol, cast

from wool._serialization.encoded import Encoded
from wool._serialization.travelling import Modules
from wool._serialization.variables import (
    VARIABLES,
    Identity,
    Nameless,
    dotted,
)
from wool._texts import kind_of, reason_of
from wool.abc import Buffer

Variable = ContextVar[Any]
Complain = Callable[[str, str], None]
"""Tells the user that something does not travel: a label and a sentence."""

LARGE = 1 << 20
"""A value that may change is pickled for each call; from so many bytes on the user is told."""

MOST_KEPT = 512
MOST_KEPT_BYTES = 32 << 20
"""So many values are kept in pickled form, with so many bytes."""

MOST_FAILED = 512


class Kind(enum.IntEnum):
    """What became of a variable."""

    SET = 0
    """It has a new value."""
    RETURNED = 1
    """It has the value again that the receiver gave it last."""
    UNSET = 2
    """It has no value any more."""
    REMARK = 3
    """Something about it does not travel; what to tell the user."""
    TRANSLATED = 4
    """It stands for a library's context; a translator knows what the value means."""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one variable.

    Attributes:
        names, origin: which variable; see `Identity`.
        encoded: its new value.
        remark: what to tell the user.
    """

    names: Sequence[str]
    origin: bytes
    kind: Kind
    encoded: Encoded | None = None
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A change that has arrived; fields as those of `Change`."""

    names: Sequence[str]
    origin: bytes
    kind: int
    segments: Sequence[Buffer]
    remark: str = ""


class Translator(Protocol):
    """Has a library's context travel."""

    name: str

    def capture(self) -> bytes | None:
        """Returns what of the current context has to travel."""

    def restore(self, data: bytes | None) -> None:
        """Makes it part of the current context."""


class ValueCodec(Protocol):
    """Encodes and decodes values; see `Codec`."""

    modules: Modules

    def encode_closed(self, value: Any) -> Encoded: ...
    def decode(self, segments: Sequence[Buffer]) -> Any: ...


class ContextCodec:
    """Encodes the values of variables on behalf of a pool.

    Args:
        codec: for the values.
        exclude: variables that stay where they are, as `module.name`, and names of translators.
        translators: of contexts that are none of variables.
    """

    def __init__(
        self,
        codec: ValueCodec,
        exclude: Iterable[str] = (),
        translators: Iterable[Translator] = (),
    ) -> None:
        self._codec = codec
        self.translators: dict[str, Translator] = {
            t.name: t for t in translators if t.name not in set(exclude)
        }
        self._modules = codec.modules
        self._exclude = frozenset(exclude)
        self._kept: OrderedDict[int, tuple[object, Encoded, int]] = OrderedDict()
        self._kept_bytes = 0
        self._failed: OrderedDict[int, Callable[[], object]] = OrderedDict()
        self._told: set[str] = set()

    def travels(self, identity: Identity) -> bool:
        """Whether a variable is not excluded."""
        return not self._exclude or not any(
            dotted(name) in self._exclude for name in identity.names
        )

    def excludes(self, label: str) -> bool:
        """Whether a variable that has no other name is excluded."""
        return label in self._exclude

    def identify(self, variable: Variable, value: object) -> Identity | Nameless:
        """Returns what a variable is called."""
        return VARIABLES.identify(variable, value, self._modules.imported())

    def find(self, origin: bytes, names: Sequence[str]) -> Variable | None:
        """Returns the variable with these names, if it is here by now."""
        return VARIABLES.find(origin, names, self._modules.imported())

    def load(self, segments: Sequence[Buffer]) -> Any:
        """Rebuilds a value."""
        return self._codec.decode(segments)

    def encode(self, identity: Identity, value: object, complain: Complain) -> Encoded | None:
        """Encodes the value of a variable; None if it cannot travel."""
        kept = self._kept.get(id(value))
        if kept is not None and kept[0] is value:
            return kept[1]
        failed = self._failed.get(id(value))
        if failed is not None and failed() is value:
            return None
        try:
            encoded = self._codec.encode_closed(value)
            if encoded.calls or encoded.exports:  # who would begin it, or let go of it?
                raise TypeError("a call or a running generator travels only as an argument")
        except KeyboardInterrupt:  # perhaps Ctrl-C
            raise
        except BaseException as error:  # pickling runs the user's code
            self._note_failure(identity, value, error, complain)
            return None
        size = sum(map(len, encoded.segments))
        if immutable(value):
            self._keep(value, encoded, size)
        elif size > LARGE and not identity.library:
            self.tell(
                f"{identity} is large",
                f"the value of the context variable {identity} has {size / LARGE:.1f} MiB, and is "
                "pickled for each call because it may change: keep it in an argument, or name the "
                "variable in the setting `exclude`",
                complain,
            )
        return encoded

    def tell(self, label: str, remark: str, complain: Complain) -> None:
        """Tells the user something about a variable, once."""
        if label not in self._told:
            self._told.add(label)
            complain(label, remark)

    def _note_failure(
        self, identity: Identity, value: object, error: BaseException, complain: Complain
    ) -> None:
        self._failed[id(value)] = _reference(value)
        while len(self._failed) > MOST_FAILED:
            self._failed.popitem(last=False)
        if not identity.library:
            self.tell(
                str(identity),
                f"the value of the context variable {identity} ({kind_of(value)}) does "
                f"not travel: {reason_of(error)}. Keep something in it that can be "
                "pickled, or name the variable in the setting `exclude`",
                complain,
            )

    def _keep(self, value: object, encoded: Encoded, size: int) -> None:
        self._kept[id(value)] = value, encoded, size
        self._kept_bytes += size
        while len(self._kept) > MOST_KEPT or (
            self._kept_bytes > MOST_KEPT_BYTES and len(self._kept) > 1
        ):
            _, (_, _, old) = self._kept.popitem(last=False)
            self._kept_bytes -= old


def _reference(value: object) -> Callable[[], object]:
    """Returns what tells whether a value is still the same, and keeps it alive only if need be."""
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: value


def immutable(value: Any, depth: int = 4) -> bool:
    """Whether a value cannot change, as far as its type tells."""
    kind = cast("type[Any]", type(value))
    if kind in _ATOMS or issubclass(kind, enum.Enum):
        return True
    if not depth:
        return False
    if kind in (tuple, frozenset) or (tuple in kind.__bases__ and hasattr(value, "_fields")):
        return all(immutable(item, depth - 1) for item in value)
    if is_dataclass(value) and cast(Any, kind).__dataclass_params__.frozen:
        return all(immutable(getattr(value, f.name, None), depth - 1) for f in fields(kind))
    return f"{kind.__module__}.{kind.__qualname__}" in _NAMED_ATOMS


_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, type(...), range})
_NAMED_ATOMS = frozenset(
    {
        "datetime.date",
        "datetime.datetime",
        "datetime.time",
        "datetime.timedelta",
        "datetime.timezone",
        "decimal.Decimal",
        "fractions.Fraction",
        "pathlib.PosixPath",
        "pathlib.PurePosixPath",
        "pathlib.PureWindowsPath",
        "pathlib.WindowsPath",
        "uuid.UUID",
        "zoneinfo.ZoneInfo",
    }
)
