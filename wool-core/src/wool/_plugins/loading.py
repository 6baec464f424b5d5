"""From the value of an entry point to a back-end, with errors that say whose fault it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from typing import Any, Generic

from wool._plugins.observers import WORD, Observer, observing
from wool._plugins.records import DISCOVERY, SERIALIZER, TRANSPORT, Hooks, Kind, P, describe
from wool.exceptions import PluginError, WoolError

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
    "otel": WORD,
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
    origin = _origin(module, provider)
    hooks = Hooks(_imported(kind.word, name, module, origin), origin)
    record = hooks.record(kind, name)
    if record is None:
        raise PluginError(
            f"{origin} is registered as the {kind.word} {name!r}, but its hook {kind.hook} does "
            f"not yield it. {listing('It yields', {r.name for r in hooks.records(kind)})} "
            f"Report this to its authors."
        )
    return Found(record, module, provider)


def load_observer(name: str, module: str, provider: str | None) -> Observer:
    """Imports the module of an observer.

    Raises:
        PluginError: it cannot be imported, observes nothing, or does not fit.
    """
    origin = _origin(module, provider)
    return observing(Hooks(_imported(WORD, name, module, origin), origin), module)


def _origin(module: str, provider: str | None) -> str:
    return f"{provider} (module {module})" if provider else f"The plug-in module {module}"


def _imported(word: str, name: str, module: str, origin: str) -> object:
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
