"""The parts of python-zeroconf that have no interface for asyncio of their own."""

from __future__ import annotations

import logging
import selectors
from collections.abc import Iterable
from typing import Any

from zeroconf import (
    DNSOutgoing,  # pyright: ignore[reportPrivateImportUsage]
    DNSPointer,  # pyright: ignore[reportPrivateImportUsage]
    DNSQuestion,  # pyright: ignore[reportPrivateImportUsage]
    Zeroconf,
)

AAAA, IN, PTR, TXT = 28, 1, 12, 16
"""Types and class of records, as DNS numbers them."""

TYPE = "_wool._tcp.local."
"""The service that workers are instances of."""

TTL = 120
"""Seconds for which programs that merely look at the records may keep them unasked."""

QUIET = logging.CRITICAL + 1


def hush() -> None:
    """Silences the library, which warns of networks that go away and come back.

    Its logger `zeroconf` is left alone if somebody has set its level.
    """
    logger = logging.getLogger("zeroconf")
    if logger.level in (logging.NOTSET, logging.WARNING):  # the library's own choice
        logger.setLevel(QUIET)


def ask_all(zeroconf: Zeroconf) -> None:
    """Asks all workers to tell of themselves, at once and to the sender alone.

    Only for a sender that has a port of its own; answers to port 5353 go to any of the programs of
    a machine that share it.
    """
    question = DNSQuestion(TYPE, PTR, IN)
    question.unicast = True
    query = DNSOutgoing(0)
    query.add_question(question)
    zeroconf.async_send(query)


def ask_others(zeroconf: Zeroconf, names: Iterable[str]) -> None:
    """Asks all workers but those with these names to tell everybody of themselves."""
    query = DNSOutgoing(0)
    query.add_question(DNSQuestion(TYPE, PTR, IN))
    for name in names:
        query.add_answer_at_time(DNSPointer(TYPE, PTR, IN, TTL, name), 0)
    zeroconf.async_send(query)


def ask_each(zeroconf: Zeroconf, names: Iterable[str]) -> None:
    """Asks the workers with these names to tell everybody of themselves."""
    query = DNSOutgoing(0)
    for name in names:
        query.add_question(DNSQuestion(name, TXT, IN))
    zeroconf.async_send(query)


def scopes(zeroconf: Zeroconf, server: str) -> list[int]:
    """Returns the indexes of the interfaces through which a host told its link-local addresses."""
    records: list[Any] = zeroconf.cache.get_all_by_details(server, AAAA, IN)
    return [record.scope_id for record in records if record.scope_id]


def unread(zeroconf: Zeroconf) -> bool:
    """Whether packets have arrived that are still to be read."""
    with selectors.DefaultSelector() as selector:
        for reader in zeroconf.engine.readers:
            if not reader.transport.is_closing():
                selector.register(reader.fileno, selectors.EVENT_READ)
        return bool(selector.select(0))
