"""From the module of a plug-in to its record. Every error says whose fault it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from typing import Any, Generic, TypeVar

import pluggy

import wool.plugins
from wool import abc
from wool.exceptions import PluginError, WoolError
from wool.plugins import API, ContextTranslator, DiscoveryPlugin, SerializerPlugin, TransportPlugin

OBSERVER = "observer"
"""Plug-ins that are no back-ends are called so."""

Plugin = TransportPlugin | DiscoveryPlugin | SerializerPlugin
_SCHEME = re.compile(r"[a-z][a-z0-9_.-]*")

P = TypeVar("P", TransportPlugin, DiscoveryPlugin, SerializerPlugin)


@dataclass(frozen=True, slots=True)
class Kind(Generic[P]):
    """What a back-end can be: how it is called, where it is listed and what it yields."""

    word: str
    group: str
    hook: str
    record: type[P]
    interface: type[Any]
    capabilities: frozenset[str] = frozenset()


TRANSPORT = Kind(
    "transport",
    "wool.transports",
    "wool_transports",
    TransportPlugin,
    abc.Transport,
    frozenset({"in-process", "local", "network", "uid", "unix"}),
)
DISCOVERY = Kind(
    "discovery",
    "wool.discoveries",
    "wool_discoveries",
    DiscoveryPlugin,
    abc.Discovery,
    frozenset({"local", "network"}),
)
SERIALIZER = Kind(
    "serializer", "wool.serializers", "wool_serializers", SerializerPlugin, abc.Serializer
)


class Hooks:
    """The hooks of one plug-in. Each has a manager of its own, so no other plug-in answers.

    Args:
        plugin: a module or object with hook implementations.
        origin: names the plug-in in errors.
    """

    def __init__(self, plugin: object, origin: str) -> None:
        self.plugin = plugin
        self.origin = origin
        self._manager = pluggy.PluginManager("wool")
        self._manager.add_hookspecs(wool.plugins)
        try:
            self._manager.register(plugin)
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(
                f"{origin} does not fit this version of wool-core: {error}. "
                f"Upgrade wool-core if the plug-in is newer, else the plug-in."
            ) from error

    @property
    def are_any(self) -> bool:
        """Whether the plug-in has hooks at all."""
        return bool(self._manager.get_hookcallers(self.plugin))

    def records(self, kind: Kind[P]) -> list[P]:
        """Returns the records of one kind, in their order; raises `PluginError` on a wrong one."""
        found = self._yielded(kind.hook)
        for record in found:
            self._check_type(record, kind.hook, kind.record)
        return found

    def _yielded(self, hook: str) -> list[Any]:
        call: Callable[[], list[Iterable[Any]]] = getattr(self._manager.hook, hook)
        try:
            return [record for records in call() for record in records]
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise PluginError(
                f"{self.origin} failed in its hook {hook}: {describe(error)}. "
                f"Upgrade it, or report this to its authors."
            ) from error

    def record(self, kind: Kind[P], name: str) -> P | None:
        """Returns the record called `name`, or None; raises `PluginError` if it is of no use."""
        for record in self.records(kind):
            if record.name == name:
                self._check_api(record)
                self._check_scheme(record)
                self._check_capabilities(record, kind)
                return record
        return None

    def translators(self) -> tuple[ContextTranslator, ...]:
        """Returns the translators of contexts; raises `PluginError` if it yields something else."""
        hook = "wool_context_translators"
        found = self._yielded(hook)
        for record in found:
            self._check_type(record, hook, ContextTranslator)
        return tuple(found)

    def caller(self, hook: str) -> Callable[..., Any] | None:
        """Returns what calls a hook of the plug-in; None if it has no such hook."""
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        return caller if caller.get_hookimpls() else None

    def _check_type(self, record: Any, hook: str, wanted: type[Any]) -> None:
        if not isinstance(record, wanted):
            raise PluginError(
                f"{self.origin} yields {record!r} from its hook {hook}, which has to yield "
                f"wool.plugins.{wanted.__name__}. Report this to its authors."
            )
        if not isinstance(record.name, str):
            raise PluginError(
                f"{self.origin} yields a {wanted.__name__} from its hook {hook} whose name is "
                f"{record.name!r}, which has to be a string. Report this to its authors."
            )

    def _check_scheme(self, record: Plugin) -> None:
        if isinstance(record, TransportPlugin) and not _SCHEME.fullmatch(record.name):
            raise PluginError(
                f"{self.origin} calls a transport {record.name!r}, which cannot be the scheme of "
                f"addresses: let it be of small letters, digits and hyphens. Report this to its "
                f"authors."
            )

    def _check_capabilities(self, record: Plugin, kind: Kind[Any]) -> None:
        told: Any = record.capabilities  # authors may use no type checker
        if not isinstance(told, frozenset | set) or told - kind.capabilities:
            known = f"of {', '.join(sorted(kind.capabilities))}" if kind.capabilities else "empty"
            raise PluginError(
                f"{self.origin} says that the {kind.word} {record.name!r} has the capabilities "
                f"{record.capabilities!r}, which have to be a frozenset {known}. Report this to "
                f"its authors."
            )

    def _check_api(self, record: Plugin) -> None:
        if type(record.api) is not int:
            raise PluginError(
                f"{self.origin} says that it was written for version {record.api!r} of the plug-in "
                f"interface, which has to be a number. Report this to its authors."
            )
        if record.api != API:
            upgrade = self.origin if record.api < API else "wool-core"
            raise PluginError(
                f"{self.origin} was written for version {record.api} of the plug-in interface, "
                f"this wool-core has version {API}. Upgrade {upgrade}."
            )


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


KINDS: tuple[Kind[Any], ...] = (TRANSPORT, DISCOVERY, SERIALIZER)

BUILT_IN: Mapping[str, str] = {
    "unix": TRANSPORT.word,
    "memory": TRANSPORT.word,
    "static": DISCOVERY.word,
    "dns": DISCOVERY.word,
    "cloudpickle": SERIALIZER.word,
}
"""Names of the back-ends that come with wool-core, and what they are."""

EXTRAS: Mapping[str, str] = {
    "grpc": TRANSPORT.word,
    "ws": TRANSPORT.word,
    "zeroconf": DISCOVERY.word,
    "shm": DISCOVERY.word,
    "dill": SERIALIZER.word,
    "otel": OBSERVER,
}
"""The same for Wool's own that need an extra of wool-core, which is called the same."""


@dataclass(frozen=True, slots=True)
class Found(Generic[P]):
    """A back-end that was looked up.

    Attributes:
        plugin: its record.
        module: what a spawned worker gives to `load_from` to find the same one; None if only this
            process can have it, because it was registered here and is not a module.
        distribution: who provides it, with version; None if that was not looked up.
    """

    plugin: P
    module: str | None
    distribution: str | None

    def make(self, options: Any) -> Any:
        """Calls the record's factory.

        Raises:
            PluginError: it fails, or makes something else.
            WoolError: what it raises itself, such as a `ConfigurationError`.
        """
        origin = self.distribution or self.module or repr(self.plugin.factory)
        try:
            made = self.plugin.factory(options)
        except (WoolError, KeyboardInterrupt):
            raise
        except BaseException as error:  # what panics in Rust is no Exception
            raise PluginError(
                f"{self.plugin.name!r} (from {origin}) cannot be used: {describe(error)}. "
                f"{_remedy(self.plugin.name, error)}"
            ) from error
        wanted = next(kind.interface for kind in KINDS if kind.record is type(self.plugin))
        if not isinstance(made, wanted):
            raise PluginError(
                f"{self.plugin.name!r} (from {origin}) makes {made!r}, which is no wool.abc."
                f"{wanted.__name__}. Report this to its authors."
            )
        return made


def load(kind: Kind[P], name: str, module: str, provider: str | None) -> Found[P]:
    """Imports a plug-in's module and returns the record called `name`.

    Raises:
        PluginError: it cannot be imported, does not have that record, or does not fit.
    """
    origin = origin_of(module, provider)
    hooks = Hooks(imported(kind.word, name, module, origin), origin)
    record = hooks.record(kind, name)
    if record is None:
        raise PluginError(
            f"{origin} is registered as the {kind.word} {name!r}, but its hook {kind.hook} does "
            f"not yield it. {listing('It yields', {r.name for r in hooks.records(kind)})} "
            f"Report this to its authors."
        )
    return Found(record, module, provider)


def origin_of(module: str, provider: str | None) -> str:
    """Names a plug-in in messages."""
    return f"{provider} (module {module})" if provider else f"The plug-in module {module}"


def imported(word: str, name: str, module: str, origin: str) -> object:
    """Returns what an entry point stands for, or raises PluginError."""
    try:
        return _resolve(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # what panics in Rust is no Exception
        raise PluginError(
            f"{origin}, which provides the {word} {name!r}, cannot be imported: "
            f"{describe(error)}. {_remedy(name, error)}"
        ) from error


def _resolve(value: str) -> object:
    """Resolves the value of an entry point, `module` or `module:attribute`."""
    module, _, attribute = (part.strip() for part in value.partition(":"))
    names = attribute.split(".") if attribute else []
    return reduce(getattr, names, import_module(module))


def install(name: str) -> str:
    """Says how to install one of Wool's own back-ends."""
    return f'pip install "wool-core[{name}]"'


def _remedy(name: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        if name in EXTRAS:
            return f"Install what is missing with: {install(name)}"
        return f"Install what provides the module {error.name!r}."
    return "Upgrade or reinstall it, or choose another one."


def listing(verb: str, names: set[str]) -> str:
    return f"{verb}: {', '.join(sorted(names))}." if names else f"{verb}: none."
