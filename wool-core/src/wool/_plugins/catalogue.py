"""The catalogue of installed plug-ins: what there is, and whether it works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from wool._plugins.entrypoints import Entry
from wool._plugins.lookup import KINDS, Lookup
from wool._plugins.observers import GROUP, load_observer
from wool._plugins.records import EXTRAS, OBSERVER, Kind, describe
from wool.exceptions import ConfigurationError, PluginError, WoolError


@dataclass(frozen=True, slots=True)
class Item:
    """One plug-in of one distribution.

    Attributes:
        kind: what it is; None: an observer.
        name: what it is called.
        entry: who provides it, and in which module; None if nobody does.
        problem: why it cannot be chosen, as far as that shows without importing it.
    """

    kind: Kind[Any] | None
    name: str
    entry: Entry | None
    problem: WoolError | None

    @property
    def word(self) -> str:
        return OBSERVER if self.kind is None else self.kind.word


def items(here: Lookup, chosen: dict[str, str]) -> Iterator[Item]:
    """Yields what is installed, and what is chosen without being so. Imports nothing.

    Args:
        chosen: the names of chosen back-ends by the word for their kind.
    """
    for kind in KINDS:
        entries = sorted(here.entries(kind.group), key=lambda entry: (entry.name, entry.provider))
        for entry in entries:
            yield Item(kind, entry.name, entry, _problem(here, kind, entry.name))
        missing = chosen.get(kind.word)
        if missing is not None and missing not in {entry.name for entry in entries}:
            yield Item(kind, missing, None, _problem(here, kind, missing))
    for entry in here.entries(GROUP):
        yield Item(None, entry.name, entry, None)


def _problem(here: Lookup, kind: Kind[Any], name: str) -> WoolError | None:
    try:
        here.entry(kind, name)
    except WoolError as error:
        return error
    return None


@dataclass(frozen=True, slots=True)
class Check:
    """What came of using a plug-in.

    Attributes:
        milliseconds: how long it took.
        problem: why it cannot be used.
        optional: whether it only lacks an extra of wool-core that nobody has asked for.
    """

    milliseconds: float
    problem: Exception | None
    optional: bool = False


def check(here: Lookup, item: Item, chosen: bool, options: Callable[[Any], Any]) -> Check:
    """Imports a plug-in and has it make its back-end, which connects to nothing.

    Args:
        chosen: whether it is to be used with the settings there are.
        options: returns the options for a record; may raise `ConfigurationError`.
    """
    began = time.perf_counter()
    problem: Exception | None = None
    try:
        _use(here, item, chosen, options)
    except WoolError as error:
        problem = error
    except Exception as error:
        origin = item.entry.provider if item.entry else item.name
        problem = PluginError(
            f"The {item.word} {item.name!r} (from {origin}) cannot be made: {describe(error)}. "
            f"Upgrade it, or report this to its authors."
        )
    lacking = problem is not None and isinstance(problem.__cause__, ModuleNotFoundError)
    optional = lacking and item.name in EXTRAS and not chosen
    return Check((time.perf_counter() - began) * 1000, problem, optional)


def _use(here: Lookup, item: Item, chosen: bool, options: Callable[[Any], Any]) -> None:
    if item.kind is None:
        assert item.entry is not None
        load_observer(item.name, item.entry.value, item.entry.provider).check()
        return
    found = here.find(item.kind, item.name)
    try:
        found.make(options(found.plugin))
    except ConfigurationError:  # nobody has configured what nobody uses
        if chosen:
            raise
