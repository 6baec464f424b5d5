"""Finds a back-end by kind and name, and imports only the module of the one that was chosen.

pluggy could load entry points itself, but would import everything in a group and let one
distribution silently shadow another.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from wool._plugins.observers import GROUP, Observer, chosen_observers, load_observers
from wool._plugins.records import (
    BUILT_IN,
    DISCOVERY,
    EXTRAS,
    KINDS,
    SERIALIZER,
    TRANSPORT,
    Found,
    Hooks,
    Kind,
    P,
    install,
    listing,
    load,
)
from wool.exceptions import ConfigurationError, PluginError
from wool.plugins import DiscoveryPlugin, SerializerPlugin, TransportPlugin

if TYPE_CHECKING:
    from wool._plugins.entrypoints import Entry

__all__ = [
    "DISCOVERY",
    "KINDS",
    "SERIALIZER",
    "TRANSPORT",
    "Found",
    "Kind",
    "Lookup",
    "Registration",
    "companions",
    "discovery",
    "load_from",
    "names",
    "observers_from",
    "process",
    "register",
    "serializer",
    "transport",
]


class Registration:
    """A plug-in registered at run time; leaving the context, or `close`, takes it back."""

    def __init__(self, lookup: Lookup, plugin: _Registered) -> None:
        self._lookup = lookup
        self._plugin = plugin

    def close(self) -> None:
        """Unregisters the plug-in. Idempotent."""
        self._lookup.unregister(self._plugin)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Lookup:
    """Knows the plug-ins of a process. Nothing is read or imported before the first question.

    No lock is held: the worst two threads can do is to read the same metadata twice, while
    importing a module under a lock could deadlock with an import in another thread.
    """

    def __init__(self) -> None:
        self._entries: Mapping[str, tuple[Entry, ...]] | None = None
        self._found: dict[tuple[str, str], Found[Any]] = {}
        self._registered: tuple[_Registered, ...] = ()
        self._observers: tuple[Observer, ...] | None = None

    def find(self, kind: Kind[P], name: str) -> Found[P]:
        """Returns the back-end called `name`; what was registered at run time goes first.

        Raises:
            ConfigurationError: nobody has heard of the name.
            PluginError: it is not installed, broken, ambiguous, too old or too new.
        """
        registered = self._find_registered(kind, name)
        if registered is not None:
            return registered
        if (kind.group, name) not in self._found:
            entry = self.entry(kind, name)
            self._found[kind.group, name] = load(kind, name, entry.value, entry.provider)
        return self._found[kind.group, name]

    def entry(self, kind: Kind[Any], name: str) -> Entry:
        """Returns the one entry point of that name, and imports nothing.

        Raises:
            ConfigurationError, PluginError: there is none, or more than one.
        """
        matches = self._matches(kind, name)
        if not matches and self._entries is not None:
            # Perhaps it has been installed since, from a notebook for instance.
            self._entries = None
            matches = self._matches(kind, name)
        if not matches:
            raise self._unknown(kind, name)
        if len(matches) > 1:
            raise _ambiguous(kind, name, matches)
        return matches[0]

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
        yield from BUILT_IN
        yield from EXTRAS
        for kind in KINDS:
            yield from sorted(self.names_of(kind))
        yield from sorted(entry.name for entry in self.entries(GROUP))

    def names_of(self, kind: Kind[Any]) -> set[str]:
        """Returns the names of the back-ends of one kind that are installed or registered."""
        registered = {r.name for plugin in self._registered for r in plugin.hooks.records(kind)}
        return registered | {entry.name for entry in self.entries(kind.group)}

    def entries(self, group: str) -> tuple[Entry, ...]:
        """Returns what is installed in a group of entry points."""
        if self._entries is None:
            from wool._plugins.entrypoints import read

            self._entries = read([*(kind.group for kind in KINDS), GROUP])
        return self._entries[group]

    def register(self, plugin: object) -> Registration:
        """Adds a module or object with hook implementations; the latest takes precedence."""
        registered = _Registered(plugin)
        self._registered = (registered, *self._registered)
        return Registration(self, registered)

    def unregister(self, plugin: _Registered) -> None:
        """Takes back what was registered."""
        self._registered = tuple(other for other in self._registered if other is not plugin)

    def _find_registered(self, kind: Kind[P], name: str) -> Found[P] | None:
        for plugin in self._registered:
            record = plugin.hooks.record(kind, name)
            if record is not None:
                return Found(record, plugin.module, None)
        return None

    def _matches(self, kind: Kind[Any], name: str) -> list[Entry]:
        return [entry for entry in self.entries(kind.group) if entry.name == name]

    def _unknown(self, kind: Kind[Any], name: str) -> ConfigurationError | PluginError:
        if EXTRAS.get(name) == kind.word:
            return PluginError(
                f"The {kind.word} {name!r} is not installed. Install it with: {install(name)}"
            )
        if BUILT_IN.get(name) == kind.word:
            return PluginError(
                f"The {kind.word} {name!r} belongs to wool-core, but the metadata of wool-core "
                f"does not list it. Reinstall it with: pip install --force-reinstall wool-core"
            )
        return _unknown_name(kind, name, self.names_of(kind))


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


def _unknown_name(kind: Kind[Any], name: str, names: set[str]) -> ConfigurationError:
    near = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    other = BUILT_IN.get(name) or EXTRAS.get(name)
    if other:
        hint = f" There is a {other} of that name."
    return ConfigurationError(
        f"There is no {kind.word} {name!r}.{hint} {listing('Installed are', names)}"
    )


def _ambiguous(kind: Kind[Any], name: str, matches: list[Entry]) -> PluginError:
    providers = " and ".join(f"{entry.provider} (module {entry.value})" for entry in matches)
    others = " or ".join(sorted({f"pip uninstall {entry.distribution}" for entry in matches}))
    return PluginError(
        f"The {kind.word} {name!r} is provided by {providers}. "
        f"Uninstall the one you do not want: {others}"
    )


@cache
def process() -> Lookup:
    """Returns the plug-ins of this process."""
    return Lookup()


def transport(name: str) -> Found[TransportPlugin]:
    """Returns the transport called `name`; see `Lookup.find`."""
    return process().find(TRANSPORT, name)


def discovery(name: str) -> Found[DiscoveryPlugin]:
    """Returns the discovery called `name`; see `Lookup.find`."""
    return process().find(DISCOVERY, name)


def serializer(name: str) -> Found[SerializerPlugin]:
    """Returns the serializer called `name`; see `Lookup.find`."""
    return process().find(SERIALIZER, name)


def names() -> Iterator[str]:
    """Yields the names of all plug-ins; see `Lookup.names`."""
    return process().names()


def companions(chosen: Iterable[str]) -> tuple[Observer, ...]:
    """Returns all observers and translators of contexts; see `Lookup.companions`."""
    return process().companions(chosen)


def register(plugin: object) -> Registration:
    """Registers a plug-in in this process; see `Lookup.register`."""
    return process().register(plugin)


def load_from(module: str, name: str, kind: Kind[P]) -> Found[P]:
    """Loads a back-end from the module another process found it in, without reading metadata."""
    return load(kind, name, module, None)


def observers_from(modules: Iterable[str]) -> tuple[Observer, ...]:
    """Loads observers from the modules another process found them in; see `load_from`."""
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
        known |= {own for own, word in {**BUILT_IN, **EXTRAS}.items() if word == TRANSPORT.word}
        if name not in known and plain in known:
            return plain
    return name
