"""Pickles what can be pickled of an exception that cannot be pickled as it is.

Each exception of the graph (causes, contexts, members of groups) is portrayed: a stand-in object
whose reduction says how to rebuild the exception, from only those parts that can be pickled. The
exceptions themselves are not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from wool._serialization.anatomy import (
    ARGS,
    links_of,
    make,
    members_of,
    reduce_as_written,
    reduces_itself,
    restore,
)
from wool._serialization.fields import fields_of
from wool._serialization.summaries import repr_of, summarise
from wool.exceptions import RemoteError


class Portrait:
    """Is pickled in place of an exception, and comes back as that exception."""

    __slots__ = ("reduced",)
    reduced: tuple[Any, ...]

    def __reduce_ex__(self, protocol: Any, /) -> tuple[Any, ...]:
        return self.reduced


class Painter:
    """Portrays all exceptions of a graph.

    Args:
        dumps: the serializer; whether a part can be pickled is found out by trying.
        label: see `tracebacks.capture`.
    """

    def __init__(self, dumps: Callable[[Any], Any], label: str | None) -> None:
        self._dumps = dumps
        self._label = label
        self._portraits: dict[int, Portrait] = {}
        self._waiting: list[tuple[BaseException, Portrait]] = []

    def paint(self, exc: BaseException) -> Portrait:
        """Portrays an exception and all that it is linked to."""
        portrait = self._portrait(exc)
        while self._waiting:
            sitter, unfinished = self._waiting.pop()
            unfinished.reduced = self._reduced(sitter)
        return portrait

    def _portrait(self, exc: BaseException) -> Portrait:
        """Returns the portrait of an exception, which is finished later: graphs have cycles."""
        if id(exc) not in self._portraits:
            self._portraits[id(exc)] = Portrait()
            self._waiting.append((exc, self._portraits[id(exc)]))
        return self._portraits[id(exc)]

    def _reduced(self, exc: BaseException) -> tuple[Any, ...]:
        links = self._links(exc)
        if self._failure(type(exc)) is not None:
            return self._substitute(exc, links)
        return self._as_written(exc, links) or self._plain(exc, links)

    def _links(self, exc: BaseException) -> Any:
        *others, suppress, frames = links_of(exc, self._label)
        painted = [None if other is None else self._portrait(other) for other in others]
        return *painted, suppress, frames

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
        lost: list[str] = []
        args = tuple(self._argument(value) for value in ARGS.__get__(exc))
        fields = self._kept(fields_of(exc), lost)
        attributes = dict(exc.__dict__)
        notes = attributes.pop("__notes__", [])
        attributes = self._kept(attributes, lost)
        if isinstance(exc, AttributeError):
            lost = [text for text in lost if not text.startswith("'obj' ")]
        notes = [self._argument(note) for note in _listed(notes)]
        if lost:
            notes.append(f"Wool left out what cannot be pickled: {', '.join(lost)}")
        if notes:
            attributes["__notes__"] = notes
        body = (args, fields, attributes, None)
        return make, (type(exc), *self._members(exc)), (links, body), None, None, restore

    def _members(self, exc: BaseException) -> tuple[Any, ...]:
        return tuple(self._painted(item) for item in members_of(exc))

    def _argument(self, value: Any) -> Any:
        painted = self._painted(value)
        return painted if self._failure(painted) is None else f"<unpicklable: {repr_of(value)}>"

    def _kept(self, values: dict[str, Any], lost: list[str]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, value in values.items():
            painted = self._painted(value)
            failure = self._failure(painted)
            if failure is None:
                kept[name] = painted
            else:
                lost.append(f"{name!r} ({repr_of(failure)})")
        return kept

    def _painted(self, value: Any) -> Any:
        """Portrays a value if it is an exception, or a list or tuple of nothing else."""
        if isinstance(value, BaseException):
            return self._portrait(value)
        if type(value) in (list, tuple):
            items = cast("list[Any]", value)
            if items and all(isinstance(item, BaseException) for item in items):
                return type(value)(self._portrait(item) for item in items)
        return value

    def _failure(self, value: Any) -> BaseException | None:
        """Tries to pickle a value. A portrait always can be."""
        if isinstance(value, Portrait):
            return None
        if type(value) in (list, tuple) and value and isinstance(value[0], Portrait):
            return None
        try:
            self._dumps(value)
        except BaseException as error:
            return error
        return None


def _listed(notes: Any) -> list[Any]:
    """`__notes__` is an ordinary attribute, which may be set to anything."""
    return cast("list[Any]", notes) if isinstance(notes, list) else []
