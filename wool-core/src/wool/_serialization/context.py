"""Context variables that travel: what a caller has set, and what a routine sets.

Caller and routine each have a context, and both are to look as one. Each side keeps a `Mirror`:
what the other side knows. Before a step the caller sends what has changed in its context, after it
the routine does; each sets in its own context what the other has sent. A value that has not
changed, by identity, is not sent.
"""

from __future__ import annotations

import enum
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextvars import Context, ContextVar, Token, copy_context
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol, cast

from wool._serialization.arrivals import ARRIVALS, WAITING, Key, Waiting, drop, wait
from wool._serialization.codec import Codec, Encoded
from wool._serialization.variables import (
    VARIABLES,
    Identity,
    Nameless,
    default_of,
    dotted,
)
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
_MISSING = object()


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


class ContextCodec:
    """Encodes the values of variables on behalf of a pool.

    Args:
        exclude: variables that stay where they are, as `module.name`, and names of translators.
        translators: of contexts that are none of variables.
    """

    def __init__(
        self,
        codec: Codec,
        exclude: Iterable[str] = (),
        translators: Iterable[Translator] = (),
    ) -> None:
        self._codec = codec
        self.translators: dict[str, Translator] = {
            t.name: t for t in translators if t.name not in set(exclude)
        }
        self._modules = codec.book.modules
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
        except Exception as error:
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
        self, identity: Identity, value: object, error: Exception, complain: Complain
    ) -> None:
        self._failed[id(value)] = _reference(value)
        while len(self._failed) > MOST_FAILED:
            self._failed.popitem(last=False)
        if not identity.library:
            self.tell(
                str(identity),
                f"the value of the context variable {identity} ({type(value).__qualname__}) does "
                f"not travel: {type(error).__name__}: {error}. Keep something in it that can be "
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


def changed_since(before: Context) -> bool:
    """Whether the current context is not any more as it was."""
    now = copy_context()
    if len(now) != len(before):
        return True
    get = before.get
    return any(get(variable, _MISSING) is not value for variable, value in now.items())


class Mirror:
    """What the other side knows of the current context.

    Args:
        complain: tells the user of what does not travel.
        base: on the side of the routine, the context it began in, which need not be told of.
        crossing: whether what the sides send may cross, so that neither knows what the other one
            has had last.
    """

    __slots__ = (
        "_asks",
        "_captured",
        "_codec",
        "_complain",
        "_crossing",
        "_given",
        "_late",
        "_passed",
        "_seen",
        "_taken",
        "_tokens",
    )

    def __init__(
        self,
        codec: ContextCodec,
        complain: Complain,
        base: Context | None = None,
        *,
        crossing: bool = False,
    ) -> None:
        self._crossing = crossing
        self._codec = codec
        self._complain = complain
        self._asks = base is None  # whether this is the caller's side
        self._seen: dict[Any, object] = {} if base is None else dict(base.items())
        self._given: dict[Variable, object] = {}  # what the other side last had from here
        self._taken: dict[Variable, object] = {}  # what it has given
        self._tokens: dict[Variable, Token[Any]] = {}
        self._late: list[Waiting] = []
        self._passed: dict[Key, Waiting] = {}  # of what waits, what the other side knows
        self._captured: dict[str, bytes | None] = {}  # of what is translated, the same

    # Sending ----------------------------------------------------------------------------------

    def changes(self) -> list[Change]:
        """Returns what has changed in the current context since it was last asked for or told."""
        changes: list[Change] = []
        seen = self._seen
        context = copy_context()
        if WAITING in context or self._late:
            self._settle(changes)
            context = copy_context()
        for variable, value in context.items():
            if seen.get(variable, _MISSING) is not value:
                seen[variable] = value
                if variable is not WAITING:
                    self._add(variable, value, changes)
        if len(seen) > len(context):
            for variable in [variable for variable in seen if variable not in context]:
                del seen[variable]
                self._add(variable, _MISSING, changes)
        if self._asks and self._codec.translators:
            changes += self._translations()
        return changes

    def _translations(self) -> Iterator[Change]:
        captured = self._captured
        for name, translator in self._codec.translators.items():
            data = translator.capture()
            if data != captured.get(name):
                captured[name] = data
                encoded = None if data is None else Encoded([data], {})
                yield Change([name], b"", Kind.TRANSLATED, encoded)

    def _add(self, variable: Variable, value: object, changes: list[Change]) -> None:
        identity = self._codec.identify(variable, value)
        if isinstance(identity, Nameless):
            # Nobody but the routine itself could know one that it has made.
            if identity.complaint and self._asks and not self._codec.excludes(identity.label):
                label = f"{identity.label} {id(variable)}"
                self._codec.tell(label, identity.complaint, self._complain)
            return
        if not self._codec.travels(identity):
            return
        names, origin = identity.names, identity.origin
        if value is _MISSING:
            changes.append(Change(names, origin, Kind.UNSET))
        elif self._taken.get(variable, _MISSING) is value and not self._crossing:
            changes.append(Change(names, origin, Kind.RETURNED))
        else:
            encoded = self._codec.encode(identity, value, self._complain)
            if encoded is not None:
                self._given[variable] = value
                changes.append(Change(names, origin, Kind.SET, encoded))

    def _settle(self, changes: list[Change]) -> None:
        """Deals with values whose variables were not here: they may be by now, or wait on."""
        ARRIVALS.settle()
        for waiting in [late for late in self._late if late.variable is not None]:
            self._late.remove(waiting)
            assert waiting.variable is not None
            self._seen[waiting.variable] = self._taken[waiting.variable] = waiting.value
        for waiting in WAITING.get({}).values():
            if self._passed.get(waiting.key) is not waiting:
                self._passed[waiting.key] = waiting
                origin, names = waiting.key
                changes.append(Change(names, origin, Kind.SET, Encoded(list(waiting.segments), {})))

    # Receiving --------------------------------------------------------------------------------

    async def take(
        self, changes: Iterable[Arrived], load: Callable[[Sequence[Buffer]], Awaitable[Any]]
    ) -> None:
        """Makes the current context look like the other side's.

        Args:
            load: rebuilds a value.
        """
        for change in changes:
            if change.kind == Kind.REMARK:
                self._complain(change.names[0], change.remark)  # it has been said once
                continue
            if change.kind == Kind.TRANSLATED:
                translator = self._codec.translators.get(change.names[0])
                if translator is not None:
                    segments = change.segments
                    translator.restore(bytes(segments[0]) if segments else None)
                continue
            key = change.origin, tuple(change.names)
            variable = self._codec.find(change.origin, change.names)
            if variable is None:
                drop(key)
                if change.kind == Kind.SET:
                    self._await(change)
            elif change.kind == Kind.UNSET:
                self._unset(variable)
            elif change.kind == Kind.RETURNED:
                if variable in self._given:
                    self._set(variable, self._given[variable])
            else:
                await self._take_value(variable, change, load)

    async def _take_value(
        self,
        variable: Variable,
        change: Arrived,
        load: Callable[[Sequence[Buffer]], Awaitable[Any]],
    ) -> None:
        try:
            value = await load(change.segments)
        except Exception as error:
            self._taken.pop(variable, None)
            self._refuse(change.names[0], error)
        else:
            self._set(variable, value)
            self._taken[variable] = value

    def _await(self, change: Arrived) -> None:
        codec, names, segments = self._codec, change.names, change.segments
        waiting = Waiting(change.origin, names, segments, codec.find, codec.load, self._refuse)
        wait(waiting)
        self._late.append(waiting)
        self._passed[waiting.key] = waiting

    def _refuse(self, name: str, error: Exception) -> None:
        label = dotted(name)
        self._codec.tell(
            label,
            f"the value of the context variable {label} cannot be rebuilt where it was sent to: "
            f"{type(error).__name__}: {error}. Check that what it is made of is installed there, "
            "or name the variable in the setting `exclude`",
            self._complain,
        )

    def _set(self, variable: Variable, value: object) -> None:
        token = variable.set(value)
        self._seen[variable] = value
        if variable not in self._tokens:
            self._tokens[variable] = token

    def _unset(self, variable: Variable) -> None:
        """Takes a value away: what was there before the first change made here is there again."""
        token = self._tokens.pop(variable, None)
        try:
            if token is not None:
                variable.reset(token)
        except (ValueError, RuntimeError):  # it is from another task's context
            self._restore(variable, token)
        else:
            if token is None:
                self._restore(variable, token)
        context = copy_context()
        self._seen.pop(variable, None)
        if variable in context:
            self._seen[variable] = context[variable]

    @staticmethod
    def _restore(variable: Variable, token: Token[Any] | None) -> None:
        """Does what can be done in a context in which nobody could unset the variable."""
        if token is not None and token.old_value is not Token.MISSING:
            variable.set(token.old_value)
        elif default := default_of(variable):
            variable.set(default[0])


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
