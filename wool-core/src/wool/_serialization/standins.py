"""Pickles what can be pickled of an exception that cannot be pickled as it is.

Each exception of the graph (causes, contexts, members of groups) gets a stand-in: an object whose
reduction says how to rebuild the exception from only those parts that can be pickled. The
exceptions themselves are not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from wool._serialization.fields import fields_of
from wool._serialization.reduction import (
    ARGS,
    links_of,
    make,
    members_of,
    reduce_as_written,
    reduces_itself,
    restore,
)
from wool._serialization.summaries import summarise
from wool._texts import repr_of
from wool.exceptions import RemoteError

MAX_PARTS = 1000
"""So many parts of values are looked at, each by itself, for all exceptions of a graph."""

MAX_DEPTH = 4
"""So deep are the parts of parts."""


class StandIn:
    """Is pickled in place of an exception, and comes back as that exception."""

    __slots__ = ("reduced",)
    reduced: tuple[Any, ...]

    def __reduce_ex__(self, protocol: Any, /) -> tuple[Any, ...]:
        return self.reduced


class StandIns:
    """The stand-ins for all exceptions of a graph.

    Args:
        dumps: the serializer; whether a part can be pickled is found out by trying.
        label: see `tracebacks.capture`.
    """

    def __init__(self, dumps: Callable[[Any], Any], label: str | None) -> None:
        self._dumps = dumps
        self._label = label
        self._made: dict[int, StandIn] = {}
        self._waiting: list[tuple[BaseException, StandIn]] = []
        self._looked_at = 0

    def make(self, exc: BaseException) -> StandIn:
        """Returns the stand-in for an exception, and makes those for all that it is linked to."""
        made = self._stand_in(exc)
        while self._waiting:
            original, unfinished = self._waiting.pop()
            unfinished.reduced = self._reduced(original)
        return made

    def _stand_in(self, exc: BaseException) -> StandIn:
        """Returns the stand-in for an exception, which is finished later: graphs have cycles."""
        if id(exc) not in self._made:
            self._made[id(exc)] = StandIn()
            self._waiting.append((exc, self._made[id(exc)]))
        return self._made[id(exc)]

    def _reduced(self, exc: BaseException) -> tuple[Any, ...]:
        links = self._links(exc)
        if self._failure(type(exc)) is not None:
            return self._substitute(exc, links)
        return self._as_written(exc, links) or self._plain(exc, links)

    def _links(self, exc: BaseException) -> Any:
        *others, suppress, frames = links_of(exc, self._label)
        replaced = [None if other is None else self._stand_in(other) for other in others]
        return *replaced, suppress, frames

    def _substitute(self, exc: BaseException, links: Any) -> tuple[Any, ...]:
        """Puts a RemoteError in place of an exception whose class cannot travel."""
        summary = summarise(exc, self._label)
        texts = {
            "type_name": summary.type_name,
            "message": summary.message,
            "traceback": summary.traceback,
        }
        body = (tuple(texts.values()), None, texts, None)
        # Its text has the traceback already.
        links = (*links[:-1], None)
        return make, (RemoteError,), (links, body), None, None, restore

    def _as_written(self, exc: BaseException, links: Any) -> tuple[Any, ...] | None:
        """Asks a class that reduces itself; returns None if there is none or it does not work."""
        if not reduces_itself(type(exc)):
            return None
        try:
            reduced = reduce_as_written(exc, None)
            self._dumps(reduced)
        except BaseException:
            return None
        if isinstance(reduced, str):
            return None
        func, args, (_, body), *rest = reduced
        return func, args, (links, body), *rest

    def _plain(self, exc: BaseException, links: Any) -> tuple[Any, ...]:
        """Takes those parts that can be pickled, and notes what is missing."""
        lost: dict[str, str] = {}
        args = tuple(self._argument(value) for value in ARGS.__get__(exc))
        fields = self._kept(fields_of(exc), lost)
        attributes = dict(exc.__dict__)
        notes = attributes.pop("__notes__", [])
        attributes = self._kept(attributes, lost)
        if isinstance(exc, AttributeError):
            lost.pop("obj", None)
        if lost and self._falls_silent(exc, args, fields, attributes):
            missing = (lost.keys() & exc.__dict__.keys()) - attributes.keys()
            attributes |= {name: self._argument(exc.__dict__[name]) for name in missing}
        notes = [self._argument(note) for note in _listed(notes)]
        if lost:
            reasons = (f"{name!r} ({reason})" for name, reason in lost.items())
            notes.append(f"Wool left out what cannot be pickled: {', '.join(reasons)}")
        if notes:
            attributes["__notes__"] = notes
        body = (args, fields, attributes, None)
        return make, (type(exc), *self._members(exc)), (links, body), None, None, restore

    def _members(self, exc: BaseException) -> tuple[Any, ...]:
        return tuple(self._replaced(item) for item in members_of(exc))

    def _argument(self, value: Any, depth: int = MAX_DEPTH) -> Any:
        replaced = self._replaced(value)
        if self._failure(replaced) is None:
            return replaced
        parts = self._parts(replaced, depth)
        return f"<unpicklable: {repr_of(value)}>" if parts is None else parts

    def _kept(self, values: dict[str, Any], lost: dict[str, str]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, value in values.items():
            replaced = self._replaced(value)
            failure = self._failure(replaced)
            if failure is not None:
                lost[name] = repr_of(failure)
                replaced = self._parts(replaced, MAX_DEPTH)
            if failure is None or replaced is not None:
                kept[name] = replaced
        return kept

    def _parts(self, value: Any, depth: int) -> Any:
        """Returns a list, tuple or dictionary with texts in place of what cannot be pickled in it.

        None for any other value, and for one that it would take too long to look at.
        """
        kind = cast("type[Any]", type(value))
        keyed, listed, fixed = kind is dict, kind is list, issubclass(kind, tuple)
        if not depth or not (keyed or listed or fixed):
            return None
        items: list[Any] = [*(value.values() if keyed else value)]
        self._looked_at += len(items)
        if self._looked_at > MAX_PARTS or (keyed and self._failure([*value]) is not None):
            return None
        items = [self._argument(item, depth - 1) for item in items]
        if listed:
            return items
        if keyed:
            return dict(zip(value, items, strict=True))
        parts: Any = cast(Any, tuple).__new__(kind, items)
        return parts if kind is tuple or self._failure(parts) is None else None

    def _falls_silent(self, exc: BaseException, *parts: Any) -> bool:
        """Whether these parts of an exception are too few for its class to say what it is."""
        try:
            str(exc)
        except BaseException:
            return False
        try:
            bare = make(type(exc), *members_of(exc))
            restore(bare, ((None, None, None, False, None), (*parts, None)))
            str(bare)
        except BaseException:
            return True
        return False

    def _replaced(self, value: Any) -> Any:
        """Replaces a value if it is an exception, or a list or tuple of nothing else."""
        if isinstance(value, BaseException):
            return self._stand_in(value)
        if type(value) in (list, tuple):
            items = cast("list[Any]", value)
            if items and all(isinstance(item, BaseException) for item in items):
                return type(value)(self._stand_in(item) for item in items)
        return value

    def _failure(self, value: Any) -> BaseException | None:
        """Tries to pickle a value. A stand-in always can be."""
        if isinstance(value, StandIn):
            return None
        if type(value) in (list, tuple) and value and isinstance(value[0], StandIn):
            return None
        try:
            self._dumps(value)
        except BaseException as error:
            return error
        return None


def _listed(notes: Any) -> list[Any]:
    """`__notes__` is an ordinary attribute, which may be set to anything."""
    return cast("list[Any]", notes) if isinstance(notes, list) else []
