"""What two sides of a call know of each other's context variables.

Caller and routine each have a context, and both are to look as one. Each side keeps a `Mirror`:
what the other side knows. Before a step the caller sends what has changed in its context, after it
the routine does; each sets in its own context what the other has sent. A value that has not
changed, by identity, is not sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextvars import Context, Token, copy_context
from typing import Any

from wool._serialization.arrivals import ARRIVALS, WAITING, Key, Waiting, drop, wait
from wool._serialization.context import Arrived, Change, Complain, ContextCodec, Kind, Variable
from wool._serialization.encoded import Encoded
from wool._serialization.variables import Nameless, default_of, dotted
from wool._texts import reason_of
from wool.abc import Buffer

_MISSING = object()


def changed_since(before: Context) -> bool:
    """Whether the current context is not any more as it was."""
    now = copy_context()
    if len(now) != len(before):
        return True
    get = before.get
    for variable, value in now.items():  # noqa: SIM110  # quicker than `any`, with every call
        if get(variable, _MISSING) is not value:
            return True
    return False


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
            f"{reason_of(error)}. Check that what it is made of is installed there, "
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
