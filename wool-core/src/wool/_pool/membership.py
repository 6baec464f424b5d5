"""Membership: the workers that a discovery finds, as a pool may use them."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from wool import abc
from wool._addresses import is_socket
from wool._client.identity import PYTHON
from wool._worker.backends import ChosenDiscovery, words
from wool._workerinfo import WorkerInfo

_log = logging.getLogger("wool.discovery")

RETRY_FIRST, RETRY_MOST = 0.5, 30.0
"""Seconds after which a discovery that has failed is asked again."""

OnChange = Callable[[dict[str, WorkerInfo]], None]


class Membership:
    """Watches a discovery, and calls back with all workers that fit whenever there is news.

    Args:
        chosen: says who exists.
        tags: labels a worker must offer, as far as it is known what it offers.
        serializer: name of the one it must have, as far as it is known which it has.
        on_change: called with the workers, by id or else by address.
        on_failed: called with what the discovery raises; returns whether the user is told of it.
    """

    def __init__(
        self,
        chosen: ChosenDiscovery,
        tags: frozenset[str],
        serializer: str,
        on_change: OnChange,
        on_failed: Callable[[Exception], bool],
    ) -> None:
        self._chosen = chosen
        self._tags = tags
        self._serializer = serializer
        self._on_change = on_change
        self._on_failed = on_failed
        self._failure: Exception | None = None
        self._found: dict[str, WorkerInfo] | None = None
        self._telling = False
        self._host = socket.gethostname()

    async def run(self) -> None:
        """Watches until cancelled; a discovery that fails is asked again."""
        delay = RETRY_FIRST
        while True:
            try:
                async with self._chosen.backend.watch() as events:
                    async for event in events:
                        self._note(event)
                        self._failure, delay = None, RETRY_FIRST
            except Exception as error:
                before, self._failure = self._failure, error
                if not self._on_failed(error) and repr(error) != repr(before):
                    _log.warning("%s fails, and is asked again: %s", self._chosen, words(error))
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_MOST)

    def _note(self, event: abc.Event) -> None:
        if isinstance(event, abc.Snapshot) or self._found is None:
            self._found = {}
        if isinstance(event, abc.Snapshot):
            self._found.update((key_of(info), info) for info in event.workers)
        elif isinstance(event, abc.Left):
            self._found.pop(key_of(event.worker), None)
        else:
            self._found[key_of(event.worker)] = event.worker
        if not self._telling:  # thousands of events may come at once
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = False
        found = self._found or {}
        self._on_change({key: info for key, info in found.items() if self.unfit(info) is None})

    def unfit(self, info: WorkerInfo) -> str | None:
        """Returns why a worker cannot be used, as far as that shows without dialling it."""
        if not is_typed(info):
            return "is described by values of other types than a WorkerInfo has"
        if not _is_text(info):
            return "is described by what is no text"
        if is_socket(info.address) and info.host not in ("", self._host):
            return f"listens on a Unix socket of another machine ({info.host})"
        if info.python not in ("", PYTHON):
            return f"runs Python {info.python}, this side {PYTHON}"
        if info.serializers and self._serializer not in info.serializers:
            return f"has no serializer {self._serializer!r}, only {', '.join(info.serializers)}"
        if info.id and not self._tags <= info.tags:
            return f"does not offer the tags {', '.join(sorted(self._tags - info.tags))}"
        return None

    @property
    def found(self) -> list[WorkerInfo]:
        """All workers that the discovery knows of, whether they fit or not."""
        return list((self._found or {}).values())

    def reasons(self) -> dict[str, list[str]]:
        """Returns the addresses of workers that do not fit, by the reasons for it."""
        reasons: dict[str, list[str]] = {}
        for info in (self._found or {}).values():
            reason = self.unfit(info)
            if reason is not None:
                reasons.setdefault(reason, []).append(str(info.address))
        return reasons

    def summary(self) -> str:
        """Says what the discovery has found, or that it has failed."""
        if self._failure is not None:
            said = words(self._failure)
            return said if said.startswith(str(self._chosen)) else f"{self._chosen} fails: {said}"
        if self._found is None:
            return f"{self._chosen} has said nothing"
        return f"{self._chosen} has found {len(self._found) or 'none'}"


def is_typed(info: Any) -> bool:
    """Whether a worker is described as it should be: a discovery may have read it anywhere."""
    if type(info.tags) not in (frozenset, set) or type(info.serializers) not in (tuple, list):
        return False
    names = (info.id, info.address, info.host, info.python, info.version)
    texts = (*names, *info.tags, *info.serializers)
    return all(isinstance(text, str) for text in texts) and isinstance(info.pid, int)


def _is_text(info: WorkerInfo) -> bool:
    """Whether others can be told of a worker: surrogates cannot be encoded."""
    try:
        "".join((info.id, info.address, info.host, *info.tags, *info.serializers)).encode()
    except UnicodeEncodeError:
        return False
    return True


def key_of(info: WorkerInfo) -> str:
    """Returns what a worker is known by: its id or, where that is not known, its address."""
    return info.id or info.address
