"""From a loaded plug-in to the record it yields, with every error saying whose fault it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pluggy

import wool.plugins
from wool import abc
from wool.exceptions import PluginError
from wool.plugins import API, ContextTranslator, DiscoveryPlugin, SerializerPlugin, TransportPlugin

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
