"""From the module of a plug-in to its record. Every error says whose fault it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import reduce
from importlib import import_module
from typing import Any, Generic, TypeVar

import pluggy

import wool.plugins
from wool import abc
from wool._msgspec import Struct
from wool._texts import reason_of
from wool.exceptions import PluginError, WoolError
from wool.plugins import (
    API,
    BackEnd,
    ContextTranslator,
    DiscoveryPlugin,
    LauncherPlugin,
    SerializerPlugin,
    TransportPlugin,
)

OBSERVER = "observer"
"""Plug-ins that are no back-ends are called so."""

_SCHEME = re.compile(r"[a-z][a-z0-9_.-]*")

P = TypeVar("P", bound=BackEnd[Any])
R = TypeVar("R")


class Kind(Struct, Generic[P], frozen=True):
    """A kind of back-end: how it is called, where it is listed and what it yields."""

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
LAUNCHER = Kind("launcher", "wool.launchers", "wool_launchers", LauncherPlugin, abc.Launcher)


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
        return self._yielded(kind.hook, kind.record)

    def translators(self) -> list[ContextTranslator]:
        """Returns the translators of contexts; raises `PluginError` if it yields something else."""
        return self._yielded("wool_context_translators", ContextTranslator)

    def record(self, kind: Kind[P], name: str) -> P | None:
        """Returns the record called `name`, or None; raises `PluginError` if it is of no use."""
        found = next((record for record in self.records(kind) if record.name == name), None)
        if found is not None:
            self._check(found, kind)
        return found

    def caller(self, hook: str) -> Callable[..., Any] | None:
        """Returns what calls a hook of the plug-in; None if it has no such hook."""
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        return caller if caller.get_hookimpls() else None

    def fault(self, text: str) -> PluginError:
        """Returns an error that its authors have to mend."""
        return PluginError(f"{self.origin} {text}. Report this to its authors.")

    def _yielded(self, hook: str, wanted: type[R]) -> list[R]:
        call: Callable[[], list[Iterable[Any]]] = getattr(self._manager.hook, hook)
        with _blaming(f"{self.origin} failed in its hook {hook}"):
            found = [record for records in call() for record in records]
        for record in found:
            if not isinstance(record, wanted):
                raise self.fault(
                    f"yields {record!r} from its hook {hook}, which has to yield "
                    f"wool.plugins.{wanted.__name__}"
                )
        return found

    def _check(self, record: BackEnd[Any], kind: Kind[Any]) -> None:
        api: Any = record.api  # authors may use no type checker
        told: Any = record.capabilities
        if not isinstance(api, int):
            raise self.fault(f"says {api!r} of its version of the interface, which is no number")
        if api != API:
            raise PluginError(
                f"{self.origin} was written for version {api} of the plug-in interface, this "
                f"wool-core has version {API}. Upgrade {self.origin if api < API else 'wool-core'}."
            )
        if kind is TRANSPORT and not _SCHEME.fullmatch(record.name):
            raise self.fault(
                f"calls a transport {record.name!r}, which cannot be the scheme of addresses: let "
                "it be of small letters, digits and hyphens"
            )
        if not isinstance(told, frozenset) or told - kind.capabilities:
            known = f"of {', '.join(sorted(kind.capabilities))}" if kind.capabilities else "empty"
            raise self.fault(
                f"says that the {kind.word} {record.name!r} has the capabilities {told!r}, which "
                f"have to be a frozenset {known}"
            )


KINDS: tuple[Kind[Any], ...] = (TRANSPORT, DISCOVERY, SERIALIZER, LAUNCHER)

EXTRAS: Mapping[str, str] = {
    "grpc": TRANSPORT.word,
    "ws": TRANSPORT.word,
    "zeroconf": DISCOVERY.word,
    "shm": DISCOVERY.word,
    "dill": SERIALIZER.word,
    "otel": OBSERVER,
}
"""Names of Wool's own plug-ins that need an extra of wool-core called the same; what they are."""

OWN: Mapping[str, str] = {
    "unix": TRANSPORT.word,
    "memory": TRANSPORT.word,
    "static": DISCOVERY.word,
    "dns": DISCOVERY.word,
    "cloudpickle": SERIALIZER.word,
    "local": LAUNCHER.word,
    "slurm": LAUNCHER.word,
    "ssh": LAUNCHER.word,
    **EXTRAS,
}
"""The same of all of Wool's own plug-ins."""

BUILT_IN: Mapping[str, str] = {
    "unix": "wool._transports.unix",
    "memory": "wool._transports.memory",
    "static": "wool._backends.static",
    "dns": "wool._backends.dns",
    "cloudpickle": "wool._backends.cloudpickle",
    "local": "wool._launchers.local",
    "ssh": "wool._launchers.ssh",
    "slurm": "wool._launchers.slurm",
}
"""The modules of those that come with wool-core."""


class Found(Struct, Generic[P], frozen=True):
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
        name, origin = self.plugin.name, self.distribution or self.module or self.plugin.factory
        with _blaming(f"{name!r} (from {origin}) cannot be used", name, WoolError):
            made = self.plugin.factory(options)
        wanted = next(kind.interface for kind in KINDS if kind.record is type(self.plugin))
        if not isinstance(made, wanted):
            raise PluginError(
                f"{name!r} (from {origin}) makes {made!r}, which is no wool.abc."
                f"{wanted.__name__}. Report this to its authors."
            )
        return made


def load_from(module: str, name: str, kind: Kind[P], provider: str | None = None) -> Found[P]:
    """Imports a plug-in's module and returns the record called `name`.

    Args:
        provider: the distribution it is from, with version, if that is known.

    Raises:
        PluginError: it cannot be imported, does not have that record, or does not fit.
    """
    hooks = import_hooks(kind.word, name, module, provider)
    record = hooks.record(kind, name)
    if record is None:
        raise hooks.fault(
            f"is registered as the {kind.word} {name!r}, but its hook {kind.hook} does not yield "
            f"it, but {', '.join(sorted(r.name for r in hooks.records(kind))) or 'none'}"
        )
    return Found(record, module, provider)


def import_hooks(word: str, name: str, module: str, provider: str | None) -> Hooks:
    """Returns the hooks of what an entry point stands for, `module` or `module:attribute`.

    Raises:
        PluginError: it cannot be imported, or does not fit.
    """
    origin = f"{provider} (module {module})" if provider else f"The plug-in module {module}"
    place, _, attribute = (part.strip() for part in module.partition(":"))
    with _blaming(f"{origin}, which provides the {word} {name!r}, cannot be imported", name):
        plugin = reduce(getattr, attribute.split(".") if attribute else [], import_module(place))
    return Hooks(plugin, origin)


@contextmanager
def _blaming(fault: str, name: str = "", *passing: type[BaseException]) -> Generator[None]:
    """Has what code of a plug-in raises say whose fault it is, and what to do.

    Args:
        fault: what has failed, and where.
        name: of the plug-in, as users choose it.
        passing: what is raised as it is.
    """
    try:
        yield
    except (KeyboardInterrupt, *passing):
        raise
    except BaseException as error:  # what panics in Rust is no Exception
        raise PluginError(f"{fault}: {reason_of(error)}. {_remedy(name, error)}") from error


def install(name: str) -> str:
    """Says how to install one of Wool's own back-ends."""
    extra = f'"wool-core[{name}]"' if name in EXTRAS else "--force-reinstall wool-core"
    return f"pip install {extra}"


def _remedy(name: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        if name in EXTRAS:
            return f"Install what is missing with: {install(name)}"
        return f"Install what provides the module {error.name!r}."
    return "Upgrade or reinstall it, or choose another one."
