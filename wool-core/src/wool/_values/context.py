"""Context variables that caller and routine share: what has changed, and the values.

Both have a context, and the two are to look as one. Each side keeps a `Mirror`: what the other side
knows. Before a step the caller sends what has changed in its context, after it the routine does;
each sets in its own context what the other has sent. A value that has not changed, by identity, is
not sent.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from contextvars import Token, copy_context
from types import FunctionType
from typing import Any, Protocol

import msgspec

from wool._protocol import frames as f
from wool._texts import kind_of, reason_of
from wool._values.codec import Codec, Encoded
from wool._values.variables import VARIABLES, Identity, Variable, default_of, dotted, is_local
from wool.abc import Buffer

Complain = Callable[[str, str], None]
"""Tells the user that something does not travel: a label and a sentence."""

Load = Callable[[Sequence[Buffer]], Awaitable[Any]]
"""Rebuilds a value."""

MAX_REMARK = 2000
"""Characters of what the caller is told of a context variable."""

LARGE = 1 << 20
"""A value that may change is pickled for each call; from so many bytes on the user is told.
One that cannot change is kept in pickled form up to that size, the last one of each variable."""

MOST_FAILED = 512
"""So many values are remembered that cannot be pickled."""

_MISSING = object()


class Change(msgspec.Struct, frozen=True):
    """The change of one variable.

    Attributes:
        variable: which one, and how it has changed.
        segments: its new value.
        code: what that mentions, see `Encoded`.
    """

    variable: f.Variable
    segments: Sequence[Buffer] = ()
    code: dict[bytes, type | FunctionType] = {}  # Struct makes a new one for each


def with_changes(encoded: Encoded, changes: Sequence[Change]) -> Encoded:
    """Adds what has become of context variables to a value."""
    if not changes:
        return encoded
    return msgspec.structs.replace(
        encoded,
        segments=[*encoded.segments, *(s for change in changes for s in change.segments)],
        code=encoded.code | {k: v for change in changes for k, v in change.code.items()},
        context=tuple(change.variable for change in changes),
    )


def without_changes(
    context: Sequence[f.Variable], segments: Sequence[Buffer]
) -> tuple[Sequence[Buffer], Sequence[Change]]:
    """Takes the values of context variables off the end of a payload; returns the rest and them."""
    end = start = len(segments) - sum(variable.segments for variable in context)
    changes: list[Change] = []
    try:
        for variable in context:
            changes.append(Change(variable, segments[start : start + variable.segments]))
            start += variable.segments
        return segments[:end], changes
    except MemoryError:  # there was none for this payload; whoever looks at its value learns of it
        return segments, ()


class Translator(Protocol):
    """Has a library's context travel."""

    name: str

    def capture(self) -> bytes | None:
        """Returns what of the current context has to travel."""

    def restore(self, data: bytes | None) -> None:
        """Makes it part of the current context."""


class ContextCodec:
    """The variables that travel for a pool, and their values in pickled form.

    Args:
        codec: for the values.
        exclude: variables that stay where they are, as `module.name`, and names of translators.
        translators: of contexts that are none of variables.
    """

    def __init__(
        self,
        codec: Codec,
        exclude: Iterable[str] = (),
        translators: Iterable[Translator] = (),
    ) -> None:
        self.modules = codec.modules
        self._codec = codec
        self._exclude = frozenset(exclude)
        self.translators = {t.name: t for t in translators if t.name not in self._exclude}
        self._travelling: dict[Variable, Identity] = {}
        self._kept: dict[Variable, tuple[object, Change]] = {}  # the last value of each
        self._failed: dict[int, Callable[[], object]] = {}
        self._told: set[str] = set()

    def any_set(self) -> bool:
        """Whether the current context has something that may have to travel."""
        nameless = VARIABLES.nameless
        for variable in copy_context():
            if variable not in nameless:
                return True
        for translator in self.translators.values():  # noqa: SIM110  # quicker than `any`
            if translator.capture() is not None:
                return True
        return False

    def identify(self, variable: Variable, complain: Complain | None) -> Identity | None:
        """Returns what a variable is called, None if it does not travel.

        Args:
            complain: tells the user of one that has no name; None if that is nobody's business.
        """
        if variable in VARIABLES.nameless:
            return None
        identity = self._travelling.get(variable)
        if identity is not None:
            return identity
        identity = VARIABLES.identify(variable, self.modules)
        if identity is None:
            name = variable.name
            if complain is not None and name not in self._exclude and is_local(variable):
                complain(
                    f"{name} {id(variable)}",
                    f"the context variable {name!r} cannot be identified: it is bound to no name "
                    "of a module or class. It keeps its value here and does not travel; bind it "
                    "to a name at the top of a module",
                )
            return None
        if not self._exclude.isdisjoint(map(dotted, identity.names)):
            return None
        self._travelling[variable] = identity
        return identity

    def encode(
        self, variable: Variable, identity: Identity, value: object, complain: Complain
    ) -> Change | None:
        """Returns that a variable has a new value; None if that cannot travel."""
        kept = self._kept.get(variable)
        if kept is not None and kept[0] is value:
            return kept[1]
        failed = self._failed.get(id(value))
        if failed is not None and failed() is value:
            return None
        try:
            encoded = self._codec.encode_closed(value)
            if encoded.calls or encoded.exports:  # nobody would begin it, or let go of it
                raise TypeError("a call or a running generator travels only as an argument")
        except KeyboardInterrupt:  # perhaps Ctrl-C
            raise
        except BaseException as error:  # pickling runs the user's code
            self._fail(identity, value, error, complain)
            return None
        described = _describe(identity, f.SET, len(encoded.segments))
        change = Change(described, encoded.segments, encoded.code)
        size = sum(map(len, encoded.segments))
        if _immutable(value):
            if size <= LARGE:
                self._kept[variable] = value, change
        elif size > LARGE and not identity.library:
            self.tell(
                f"{identity} is large",
                f"the value of the context variable {identity} has {size / LARGE:.1f} MiB, and is "
                "pickled for each call because it may change: keep it in an argument, or name the "
                "variable in the setting `exclude`",
                complain,
            )
        return change

    def tell(self, label: str, remark: str, complain: Complain) -> None:
        """Tells the user something about a variable, once."""
        if label not in self._told:
            self._told.add(label)
            complain(label, remark)

    def _fail(
        self, identity: Identity, value: object, error: BaseException, complain: Complain
    ) -> None:
        if len(self._failed) >= MOST_FAILED:
            self._failed = {}
        try:
            self._failed[id(value)] = weakref.ref(value)
        except TypeError:
            self._failed[id(value)] = lambda: value
        if not identity.library:
            self.tell(
                str(identity),
                f"the value of the context variable {identity} ({kind_of(value)}) does not travel: "
                f"{reason_of(error)}. Keep something in it that can be pickled, or name the "
                "variable in the setting `exclude`",
                complain,
            )


def _describe(identity: Identity, change: int, segments: int = 0) -> f.Variable:
    return f.Variable(identity.names, identity.origin, change, segments)


def _immutable(value: Any, depth: int = 4) -> bool:
    """Whether a value cannot change, as far as its type tells."""
    if type(value) in (tuple, frozenset):
        return depth > 0 and all(_immutable(item, depth - 1) for item in value)
    return type(value) in _ATOMS


_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})


class Mirror:
    """One side of a call: what the other side knows of the context here.

    Args:
        codec: None if no variables travel.
        complain: tells the user that something does not travel.
        crossing: whether what the sides send may cross, so that neither knows what the other one
            has had last.
    """

    __slots__ = (
        "_captured",
        "_codec",
        "_complain",
        "_crossing",
        "_given",
        "_seen",
        "_taken",
        "_tokens",
    )

    of_caller = False

    def __init__(
        self,
        codec: ContextCodec | None = None,
        complain: Complain | None = None,
        *,
        crossing: bool = False,
    ) -> None:
        self._codec = codec
        self._complain = complain
        self._crossing = crossing
        self._seen: dict[Any, object] = {}  # the context as it was last looked at
        self._given: dict[Variable, object] = {}  # those the other side last had from here
        self._taken: dict[Variable, object] = {}  # those it has given
        self._tokens: dict[Variable, Token[Any]] = {}
        self._captured: dict[str, bytes | None] = {}  # of what is translated, what it knows

    def complain(self, label: str, text: str) -> None:
        """Tells the user that something does not travel."""
        if self._complain is not None:
            self._complain(label, text)

    # Sending ----------------------------------------------------------------------------------

    def changes(self) -> list[Change]:
        """Returns what has changed in the current context since it was last asked for or told."""
        codec = self._codec
        if codec is None:
            return []
        changes: list[Change] = []
        seen, context = self._seen, copy_context()
        for variable, value in context.items():
            if seen.get(variable, _MISSING) is not value:
                seen[variable] = value
                if change := self._change(codec, variable, value):
                    changes.append(change)
        if len(seen) > len(context):
            for variable in [variable for variable in seen if variable not in context]:
                del seen[variable]
                if change := self._change(codec, variable, _MISSING):
                    changes.append(change)
        if self.of_caller and codec.translators:
            changes += self._translations(codec)
        return changes

    def _change(self, codec: ContextCodec, variable: Variable, value: object) -> Change | None:
        # Nobody but the routine itself could know a nameless one that it has made.
        identity = codec.identify(variable, self.complain if self.of_caller else None)
        if identity is None:
            return None
        if value is _MISSING:
            return Change(_describe(identity, f.UNSET))
        if self._taken.get(variable, _MISSING) is value and not self._crossing:
            return Change(_describe(identity, f.RETURNED))
        change = codec.encode(variable, identity, value, self.complain)
        if change is not None:
            self._given[variable] = value
        return change

    def _translations(self, codec: ContextCodec) -> Iterator[Change]:
        captured = self._captured
        for name, translator in codec.translators.items():
            data = translator.capture()
            if data != captured.get(name):
                captured[name] = data
                segments = () if data is None else (data,)
                yield Change(f.Variable((name,), b"", f.TRANSLATED, len(segments)), segments)

    # Receiving --------------------------------------------------------------------------------

    async def take(self, changes: Iterable[Change], load: Load) -> None:
        """Makes the current context look like the other side's."""
        codec = self._codec
        if codec is None:
            return
        for change in changes:
            variable, segments = change.variable, change.segments
            if variable.change == f.REMARK:
                self.complain(variable.names[0], variable.remark)  # it has been said once
            elif variable.change == f.TRANSLATED:
                translator = codec.translators.get(variable.names[0])
                if translator is not None:
                    translator.restore(bytes(segments[0]) if segments else None)
            else:
                await self._take(codec, change, load)

    async def _take(self, codec: ContextCodec, change: Change, load: Load) -> None:
        described, modules = change.variable, codec.modules
        kind, names, origin = described.change, described.names, described.origin
        variable = VARIABLES.find(origin, names, modules)
        if variable is None and kind == f.SET and not (origin or self.of_caller):
            variable = VARIABLES.bring(names, modules)
        if variable is None:
            return
        if kind == f.UNSET:
            self._unset(variable)
        elif kind == f.RETURNED:
            if variable in self._given:
                self._set(variable, self._given[variable])
        else:
            try:
                value = await load(change.segments)
            except Exception as error:
                self._taken.pop(variable, None)
                label = dotted(names[0])
                codec.tell(
                    label,
                    f"the value of the context variable {label} cannot be rebuilt where it was "
                    f"sent to: {reason_of(error)}. Check that what it is made of is installed "
                    "there, or name the variable in the setting `exclude`",
                    self.complain,
                )
            else:
                self._set(variable, value)
                self._taken[variable] = value

    def _set(self, variable: Variable, value: object) -> None:
        token = variable.set(value)
        self._seen[variable] = value
        self._tokens.setdefault(variable, token)

    def _unset(self, variable: Variable) -> None:
        """Takes a value away: what was there before the first change made here is there again."""
        token = self._tokens.pop(variable, None)
        try:
            if token is None:
                raise ValueError  # nothing was set here
            variable.reset(token)
        except (ValueError, RuntimeError):  # the token is from another task's context
            if token is not None and token.old_value is not Token.MISSING:
                variable.set(token.old_value)
            elif default := default_of(variable):
                variable.set(default[0])
        self._seen.pop(variable, None)
        with suppress(KeyError):
            self._seen[variable] = copy_context()[variable]


class CallerContext(Mirror):
    """The caller's side."""

    __slots__ = ()

    of_caller = True

    def changed(self) -> bool:
        """Whether there may be something that the routine has to know of the current context."""
        return self._codec is not None and (bool(self._seen) or self._codec.any_set())

    def changes(self) -> list[Change]:
        """Returns what the routine has to know of the current context."""
        return super().changes() if self.changed() else []


class RoutineContext(Mirror):
    """The routine's side, in its own task."""

    __slots__ = ("_unsent",)

    def __init__(self, codec: ContextCodec | None, *, crossing: bool) -> None:
        super().__init__(codec, crossing=crossing)
        self._unsent: list[Change] = []

    def begin(self) -> None:
        """Begins to watch: values set from now on are the caller's business."""
        self._seen = dict(copy_context().items())

    def complain(self, label: str, text: str) -> None:
        """Has the caller told with the next answer."""
        remark = f.Variable((label,), b"", f.REMARK, remark=text[:MAX_REMARK])
        self._unsent.append(Change(remark))

    def changes(self) -> list[Change]:
        """Returns what the caller has to know, once."""
        changes = super().changes()
        if self._unsent:
            changes, self._unsent = [*self._unsent, *changes], []
        return changes
