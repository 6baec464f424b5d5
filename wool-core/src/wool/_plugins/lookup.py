"""Finds a back-end by kind and name, and imports only the module of the one that was chosen.

pluggy could load entry points itself, but would import everything in a group and let one
distribution silently shadow another; see `docs/rationale.md`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, reduce
from importlib import import_module
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self

from wool._plugins.records import DISCOVERY, SERIALIZER, TRANSPORT, Hooks, Kind, P, describe
from wool.exceptions import ConfigurationError, PluginError
from wool.plugins import DiscoveryPlugin, SerializerPlugin, TransportPlugin

if TYPE_CHECKING:
    from wool._plugins.entrypoints import Entry

__all__ = [
    "DISCOVERY",
    "SERIALIZER",
    "TRANSPORT",
    "Found",
    "Kind",
    "Lookup",
    "Registration",
    "discovery",
    "load_from",
    "register",
    "serializer",
    "transport",
]

BUILT_IN = frozenset({"unix", "memory", "static", "dns", "cloudpickle"})
EXTRAS = frozenset({"grpc", "ws", "zeroconf", "shm", "dill"})
"""Names of Wool's own back-ends that need an extra of wool-core, which is called the same."""


@dataclass(frozen=True, slots=True)
class Found(Generic[P]):
    """A back-end that was looked up.

    Attributes:
        plugin: its record.
        module: what a spawned worker gives to `load_from` to find the same one; None if only
            this process can have it, because it was registered here and is not a module.
        distribution: who provides it, with version; None if that was not looked up.
    """

    plugin: P
    module: str | None
    distribution: str | None

    def make(self, options: Any) -> Any:
        """Calls the record's factory; a library that is missing becomes a `PluginError`."""
        try:
            return self.plugin.factory(options)
        except ImportError as error:
            origin = self.distribution or self.module or repr(self.plugin.factory)
            raise PluginError(
                f"{self.plugin.name!r} (from {origin}) cannot be used: {describe(error)}. "
                f"{_import_remedy(self.plugin.name, error)}"
            ) from error


class Registration:
    """A plug-in registered at run time; leaving the context, or `close`, takes it back."""

    def __init__(self, lookup: Lookup, hooks: Hooks) -> None:
        self._lookup = lookup
        self._hooks = hooks

    def close(self) -> None:
        """Unregisters the plug-in. Idempotent."""
        self._lookup.unregister(self._hooks)

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
        self._registered: tuple[Hooks, ...] = ()

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
            entry = self._entry(kind, name)
            self._found[kind.group, name] = _load(kind, name, entry.value, entry.provider)
        return self._found[kind.group, name]

    def register(self, plugin: object) -> Registration:
        """Adds a module or object with hook implementations; the latest takes precedence."""
        hooks = Hooks(plugin, f"The registered plug-in {_name_of(plugin)}")
        self._registered = (hooks, *self._registered)
        return Registration(self, hooks)

    def unregister(self, hooks: Hooks) -> None:
        self._registered = tuple(other for other in self._registered if other is not hooks)

    def _find_registered(self, kind: Kind[P], name: str) -> Found[P] | None:
        for hooks in self._registered:
            record = hooks.record(kind, name)
            if record is not None:
                return Found(record, _importable(hooks.plugin), None)
        return None

    def _entry(self, kind: Kind[P], name: str) -> Entry:
        """Returns the one entry point of that name."""
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

    def _matches(self, kind: Kind[P], name: str) -> list[Entry]:
        return [entry for entry in self._group(kind) if entry.name == name]

    def _group(self, kind: Kind[P]) -> tuple[Entry, ...]:
        if self._entries is None:
            from wool._plugins.entrypoints import read

            self._entries = read(other.group for other in (TRANSPORT, DISCOVERY, SERIALIZER))
        return self._entries[kind.group]

    def _unknown(self, kind: Kind[P], name: str) -> ConfigurationError | PluginError:
        if name in EXTRAS:
            return PluginError(
                f"The {kind.word} {name!r} is not installed. Install it with: {_extra(name)}"
            )
        if name in BUILT_IN:
            return PluginError(
                f"The {kind.word} {name!r} belongs to wool-core, but the metadata of wool-core "
                f"does not list it. Reinstall it with: pip install --force-reinstall wool-core"
            )
        names = {entry.name for entry in self._group(kind)}
        names |= {record.name for hooks in self._registered for record in hooks.records(kind)}
        return _unknown_name(kind, name, names)


def _load(kind: Kind[P], name: str, module: str, provider: str | None) -> Found[P]:
    """Imports a plug-in's module and returns the record called `name`."""
    origin = f"{provider} (module {module})" if provider else f"The plug-in module {module}"
    try:
        plugin = _import(module)
    except Exception as error:
        raise PluginError(
            f"{origin}, which provides the {kind.word} {name!r}, cannot be imported: "
            f"{describe(error)}. {_import_remedy(name, error)}"
        ) from error
    hooks = Hooks(plugin, origin)
    record = hooks.record(kind, name)
    if record is None:
        raise PluginError(
            f"{origin} is registered as the {kind.word} {name!r}, but its hook {kind.hook} does "
            f"not yield it. {_listing('It yields', {r.name for r in hooks.records(kind)})} "
            f"Report this to its authors."
        )
    return Found(record, module, provider)


def _import(value: str) -> object:
    """Resolves the value of an entry point, `module` or `module:attribute`."""
    module, _, attribute = (part.strip() for part in value.partition(":"))
    names = attribute.split(".") if attribute else []
    return reduce(getattr, names, import_module(module))


def _importable(plugin: object) -> str | None:
    """The name under which another process can import a registered plug-in, if it can."""
    name = plugin.__name__ if isinstance(plugin, ModuleType) else "__main__"
    return None if name == "__main__" else name


def _name_of(plugin: object) -> str:
    return plugin.__name__ if isinstance(plugin, ModuleType) else repr(plugin)


def _extra(name: str) -> str:
    return f'pip install "wool-core[{name}]"'


def _import_remedy(name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        if name in EXTRAS:
            return f"Install what is missing with: {_extra(name)}"
        return f"Install what provides the module {error.name!r}."
    return "Upgrade or reinstall it, or choose another one."


def _unknown_name(kind: Kind[P], name: str, names: set[str]) -> ConfigurationError:
    near = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ConfigurationError(
        f"There is no {kind.word} {name!r}.{hint} {_listing('Installed are', names)}"
    )


def _ambiguous(kind: Kind[P], name: str, matches: list[Entry]) -> PluginError:
    providers = " and ".join(f"{entry.provider} (module {entry.value})" for entry in matches)
    others = " or ".join(sorted({f"pip uninstall {entry.distribution}" for entry in matches}))
    return PluginError(
        f"The {kind.word} {name!r} is provided by {providers}. "
        f"Uninstall the one you do not want: {others}"
    )


def _listing(verb: str, names: set[str]) -> str:
    return f"{verb}: {', '.join(sorted(names))}." if names else f"{verb}: none."


@cache
def _process() -> Lookup:
    """The plug-ins of this process."""
    return Lookup()


def transport(name: str) -> Found[TransportPlugin]:
    """Returns the transport called `name`; see `Lookup.find`."""
    return _process().find(TRANSPORT, name)


def discovery(name: str) -> Found[DiscoveryPlugin]:
    """Returns the discovery called `name`; see `Lookup.find`."""
    return _process().find(DISCOVERY, name)


def serializer(name: str) -> Found[SerializerPlugin]:
    """Returns the serializer called `name`; see `Lookup.find`."""
    return _process().find(SERIALIZER, name)


def register(plugin: object) -> Registration:
    """Registers a plug-in in this process; see `Lookup.register`."""
    return _process().register(plugin)


def load_from(module: str, name: str, kind: Kind[P]) -> Found[P]:
    """Loads a back-end from the module another process found it in, without reading metadata."""
    return _load(kind, name, module, None)
