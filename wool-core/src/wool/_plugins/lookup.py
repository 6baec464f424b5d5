"""Finds a back-end by kind and name, and imports only the module of the one that was chosen.

pluggy could load entry points itself, but would import everything in a group and let one
distribution silently shadow another.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wool._msgspec import Struct
from wool._plugins.observers import GROUP, Observer, chosen_observers, load_observers
from wool._plugins.records import (
    BUILT_IN,
    DISCOVERY,
    KINDS,
    LAUNCHER,
    OWN,
    SERIALIZER,
    TRANSPORT,
    Found,
    Hooks,
    Kind,
    P,
    install,
    load_from,
)
from wool._texts import reason_of
from wool.exceptions import ConfigurationError, PluginError

if TYPE_CHECKING:
    from importlib import metadata

__all__ = [
    "DISCOVERY",
    "KINDS",
    "LAUNCHER",
    "SERIALIZER",
    "TRANSPORT",
    "Entry",
    "Found",
    "Kind",
    "Lookup",
    "companions",
    "discovery",
    "launcher",
    "load_from",
    "names",
    "observers_from",
    "process",
    "scheme_transport",
    "serializer",
    "transport",
]


class Entry(Struct, frozen=True):
    """One entry point: `name` in a group, a module (`value`), and who provides it."""

    name: str
    value: str
    distribution: str
    version: str

    @property
    def provider(self) -> str:
        return f"{self.distribution} {self.version}".rstrip()


class Lookup:
    """Knows the plug-ins of a process. Nothing is read or imported before the first question.

    No lock is held: the worst two threads can do is to read the same metadata twice, while
    importing a module under a lock could deadlock with an import in another thread.
    """

    def __init__(self) -> None:
        self._entries: Mapping[str, list[Entry]] | None = None
        self._found: dict[tuple[str, str], Found[Any]] = {}
        self._registered: tuple[_Registered, ...] = ()
        self._observers: tuple[Observer, ...] | None = None

    def find(self, kind: Kind[P], name: str) -> Found[P]:
        """Returns the back-end called `name`; what was registered at run time goes first.

        Raises:
            ConfigurationError: nobody has heard of the name.
            PluginError: it is not installed, broken, ambiguous, too old or too new.
        """
        for plugin in self._registered:
            record = plugin.hooks.record(kind, name)
            if record is not None:
                return Found(record, plugin.module, None)
        if (kind.group, name) not in self._found:
            entry = self.entry(kind, name)
            self._found[kind.group, name] = load_from(entry.value, name, kind, entry.provider)
        return self._found[kind.group, name]

    def entry(self, kind: Kind[Any], name: str) -> Entry:
        """Returns the one entry point of that name, and imports nothing.

        Raises:
            ConfigurationError, PluginError: there is none, or more than one.
        """
        if name in BUILT_IN and OWN[name] == kind.word:  # whoever else has the name
            return Entry(name, BUILT_IN[name], "wool-core", "")
        found = [entry for entry in self.entries(kind.group) if entry.name == name]
        if not found:
            self._entries = None  # perhaps it has been installed since
            found = [entry for entry in self.entries(kind.group) if entry.name == name]
        if not found:
            raise _unknown(kind, name, self.names_of(kind))
        if len(found) > 1:
            raise _ambiguous(kind, name, found)
        return found[0]

    def companions(self, chosen: Iterable[str] = ()) -> tuple[Observer, ...]:
        """Returns all observers and translators of contexts: registered, chosen and installed.

        A broken one that was not chosen is logged, once, and left out.

        Raises:
            ConfigurationError, PluginError: one cannot be chosen.
        """
        own = chosen_observers(chosen)
        if self._observers is None:
            entries = self.entries(GROUP)
            self._observers = load_observers((e.name, e.value, e.provider) for e in entries)
        registered = [plugin.observer for plugin in self._registered if plugin.observer.useful]
        return (*registered, *own, *self._observers)

    def names(self) -> Iterator[str]:
        """Yields the names of all plug-ins there are or could be installed.

        Wool's own come first, before anything is read.
        """
        yield from OWN
        for kind in KINDS:
            yield from sorted(self.names_of(kind))
        yield from sorted(entry.name for entry in self.entries(GROUP))

    def names_of(self, kind: Kind[Any]) -> set[str]:
        """Returns the names of the back-ends of one kind that are installed or registered."""
        registered = {r.name for plugin in self._registered for r in plugin.hooks.records(kind)}
        return registered | {entry.name for entry in self.entries(kind.group)}

    def entries(self, group: str) -> list[Entry]:
        """Returns what is installed in a group of entry points."""
        if self._entries is None:
            self._entries = read_entries([*(kind.group for kind in KINDS), GROUP])
        return self._entries[group]

    def register(self, plugin: object) -> contextlib.ExitStack:
        """Adds a module or object with hook implementations; the latest takes precedence.

        Leaving what is returned, or closing it, takes the plug-in back.
        """
        registered = _Registered(plugin)
        self._registered = (registered, *self._registered)
        registration = contextlib.ExitStack()
        registration.callback(self._unregister, registered)
        return registration

    def _unregister(self, plugin: _Registered) -> None:
        self._registered = tuple(other for other in self._registered if other is not plugin)


class _Registered:
    """A plug-in that was registered at run time.

    Attributes:
        module: the name under which another process can import it, if it can.
    """

    def __init__(self, plugin: object) -> None:
        if isinstance(plugin, type):
            raise PluginError(f"{plugin!r} is a class: register an instance of it, or a module")
        name = plugin.__name__ if isinstance(plugin, ModuleType) else "__main__"
        self.module: str | None = None if name == "__main__" else name
        shown = name if isinstance(plugin, ModuleType) else repr(plugin)
        self.hooks: Hooks = Hooks(plugin, f"The registered plug-in {shown}")
        self.observer: Observer = Observer(self.hooks, self.module)
        if not self.hooks.are_any:
            raise PluginError(
                f"{self.hooks.origin} has no hooks: mark its functions, such as "
                "wool_transports, with wool.plugins.hookimpl"
            )


def _unknown(kind: Kind[Any], name: str, names: set[str]) -> ConfigurationError | PluginError:
    if OWN.get(name) == kind.word:
        return PluginError(
            f"The {kind.word} {name!r} is not installed. Install it with: {install(name)}"
        )
    import difflib

    near = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if name in OWN:
        hint = f" There is a {OWN[name]} of that name."
    return ConfigurationError(
        f"There is no {kind.word} {name!r}.{hint} Installed are: {', '.join(sorted(names))}."
    )


def _ambiguous(kind: Kind[Any], name: str, matches: list[Entry]) -> PluginError:
    providers = " and ".join(f"{entry.provider} (module {entry.value})" for entry in matches)
    others = " or ".join(sorted({f"pip uninstall {entry.distribution}" for entry in matches}))
    return PluginError(
        f"The {kind.word} {name!r} is provided by {providers}. "
        f"Uninstall the one you do not want: {others}"
    )


def read_entries(groups: Iterable[str]) -> Mapping[str, list[Entry]]:
    """Reads the entry points of `groups`. Takes tens of milliseconds: once is enough."""
    from importlib import metadata  # takes milliseconds, which a worker need not spend

    try:
        installed = metadata.entry_points()
    except Exception as error:  # of one distribution, and it does not say which
        raise PluginError(
            f"The entry points of a distribution that is installed here cannot be read "
            f"({reason_of(error)}): look for an entry_points.txt that is damaged, and reinstall "
            f"the distribution that it is of"
        ) from error
    return {group: [_entry(point) for point in installed.select(group=group)] for group in groups}


def _entry(point: metadata.EntryPoint) -> Entry:
    known: Any = {}
    with contextlib.suppress(Exception):  # an uninstallation that broke off leaves no metadata
        known = point.dist.metadata  # type: ignore[union-attr]
    name, version = known.get("Name"), known.get("Version")
    return Entry(point.name, point.value, name or "an unknown distribution", version or "")


# The plug-ins of this process -----------------------------------------------------------------


@cache
def process() -> Lookup:
    """Returns the plug-ins of this process."""
    return Lookup()


def _find(kind: Kind[P], name: str) -> Found[P]:
    """Returns the back-end called `name`; see `Lookup.find`."""
    return process().find(kind, name)


transport = partial(_find, TRANSPORT)
discovery = partial(_find, DISCOVERY)
serializer = partial(_find, SERIALIZER)
launcher = partial(_find, LAUNCHER)


def names() -> Iterator[str]:
    """Yields the names of all plug-ins; see `Lookup.names`."""
    return process().names()


def companions(chosen: Iterable[str]) -> tuple[Observer, ...]:
    """Returns all observers and translators of contexts; see `Lookup.companions`."""
    return process().companions(chosen)


def observers_from(modules: Iterable[str]) -> tuple[Observer, ...]:
    """Loads observers from the modules another process found them in, without reading metadata."""
    return load_observers((module, module, None) for module in modules)


_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)(\+[A-Za-z0-9_.+-]*)?://")


def scheme_transport(address: str, here: Lookup | None = None) -> str:
    """Returns the name of the transport that an address is for; it need not be installed.

    That is the scheme without what follows a `+`. An `s` at its end means TLS, as in `wss`, unless
    there is a transport whose name ends so.

    Raises:
        ConfigurationError: the address has no scheme.
    """
    match = _SCHEME.match(address)
    if match is None:
        raise ConfigurationError(
            f"The address {address!r} does not say which transport it is for: write it as "
            f"transport://…, such as grpc://host:7000"
        )
    name = match[1].lower()
    plain = name.removesuffix("s")
    if name != plain:
        known = (here or process()).names_of(TRANSPORT)
        known |= {own for own, word in OWN.items() if word == TRANSPORT.word}
        if name not in known and plain in known:
            return plain
    return name
