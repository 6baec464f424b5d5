"""Checks of what `WorkerPool` is told."""

from __future__ import annotations

import difflib
import inspect
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, cast

from wool._client.client import Balancer
from wool._code.rules import OUR_OWN, find_spec
from wool._code.sources import read_text
from wool._plugins import lookup
from wool._protocol.frames import CallOptions
from wool._security.credentials import Authenticator, Insecure
from wool._settings.blame import blaming
from wool._settings.model import Core
from wool._settings.settings import Settings
from wool._worker.access import credentials_of
from wool._worker.arguments import checked_credentials, several
from wool._worker.discoveries import ChosenDiscovery, choose_discovery
from wool.abc import Discovery
from wool.exceptions import ConfigurationError, PluginError


def checked_size(core: Core, discovering: bool) -> int:
    """Returns how many workers a pool starts.

    Raises:
        ConfigurationError: it would have none, and find none.
    """
    if core.size is None:
        return 0 if discovering else _cpus()
    if core.size == 0 and not discovering:
        raise ConfigurationError(
            "size=0 leaves the pool without workers: give it a size, or a discovery that finds "
            "workers elsewhere"
        )
    return core.size


def _cpus() -> int:
    """Returns how many CPUs this process may use, where the system tells that."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def checked_balancer(given: Any) -> Balancer | None:
    """Returns it, or raises ConfigurationError."""
    if given is not None and not callable(given):
        raise ConfigurationError(f"balancer must be a function, not {given!r}")
    return cast("Balancer | None", given)


def pool_discovery(
    given: Any, settings: Settings, core: Core, origins: Mapping[str, str]
) -> ChosenDiscovery | None:
    """Returns what finds workers that the pool has not started; None: nothing.

    Raises:
        ConfigurationError, PluginError: there is no such discovery, or it cannot be made.
    """
    if isinstance(given, Discovery):
        return ChosenDiscovery(given)
    if given is None and _stays_in_process(core, origins):
        return None  # whoever debugs or tests a project that has one
    if given is None or isinstance(given, str):
        return choose_discovery(settings, core.discovery, origin=origins["discovery"])
    addresses = several("discovery", "addresses, or a name", given)
    return choose_discovery(settings, "static", {"addresses": addresses})


def _stays_in_process(core: Core, origins: Mapping[str, str]) -> bool:
    """Whether own workers live in this process, so that a discovery that is set is moot."""
    if core.transport is None or core.discovery is None or core.size == 0:
        return False
    with blaming(origins["transport"]):
        return "in-process" in lookup.transport(core.transport).plugin.capabilities


def pool_credentials(
    given: Any, settings: Settings, *, discovering: bool, insecure: bool
) -> Authenticator | None:
    """Returns what a pool shows to workers on a network; None: nothing.

    Raises:
        ConfigurationError: it is of no use, or does not go together.
    """
    credentials = checked_credentials(given)
    if not insecure:
        return credentials_of(settings) if credentials is None and discovering else credentials
    if credentials is not None:
        raise ConfigurationError("insecure=True along with credentials: leave one of them out")
    if not discovering:
        raise ConfigurationError(
            "insecure=True is for workers that a discovery finds, and there is none: a pool's own "
            "workers are safe without credentials, so leave it out"
        )
    warnings.warn(
        "a pool calls workers without authentication: whoever on this machine listens at their "
        "addresses can run code as you",
        RuntimeWarning,
        stacklevel=3,
    )
    return Insecure()


def positive(name: str, value: Any) -> int | None:
    """Returns a positive number or None, or raises ConfigurationError that names the argument."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigurationError(f"{name} must be a positive whole number, not {value!r}")
    return value


def module_names(argument: str, given: Iterable[str | ModuleType] | None) -> list[str] | None:
    """Returns the names of modules that were given as such or by name.

    Raises:
        ConfigurationError: something else was given.
    """
    if given is None:
        return None
    if isinstance(given, (str, ModuleType)):
        raise ConfigurationError(f"{argument} must be a list of modules, not {given!r} alone")
    items = several(argument, "modules", given)
    names: list[Any] = [getattr(item, "__name__", item) for item in items]
    for name in names:
        if not isinstance(name, str):
            raise ConfigurationError(f"{argument} must name modules, not {name!r}")
    return names


ALSO_CALLED = {
    "max_workers": "size",
    "num_workers": "size",
    "n_workers": "size",
    "n_jobs": "size",
    "processes": "size",
    "workers": "size",
    "timeout": "quorum_timeout",
    "labels": "tags",
    "backend": "transport",
}
"""Arguments of other pools, and what they are called here."""


def unknown_argument(name: str, cls: type) -> str:
    """Says that a class takes no such argument, and which one may be meant."""
    known = [known for known in inspect.signature(cls).parameters if known != "unknown"]
    close = ALSO_CALLED.get(name) or next(iter(difflib.get_close_matches(name, known)), None)
    hint = f". Did you mean {close}=?" if close else f". It takes {', '.join(known)}"
    return f"{cls.__name__} takes no argument {name!r}{hint}"


def call_options(core: Core, tags: frozenset[str], *, travels: bool) -> CallOptions:
    """Returns what holds for all calls of a pool.

    Args:
        tags: those of its own workers.
        travels: whether there may be other workers, which lack modules of the caller.

    Raises:
        ConfigurationError: modules are to be sent that cannot be, or are not to be too.
    """
    _check_modules(core)
    return CallOptions(
        quorum_timeout=core.quorum_timeout,
        cancel_grace=core.cancel_grace,
        travels=travels,
        ship=list(core.ship),
        by_reference=list(core.by_reference),
        context=core.context != "off",
        exclude=list(core.exclude),
        offered=None if travels else sorted(tags),
    )


def _check_modules(core: Core) -> None:
    for name in core.ship:
        if name in core.by_reference:
            raise ConfigurationError(f"{name} is both in ship and in by_reference")
        top = name.partition(".")[0]
        if top in OUR_OWN or top in sys.stdlib_module_names:
            raise ConfigurationError(f"{name} is in ship, but every worker has it")
        if name == "__main__":
            raise ConfigurationError("__main__ is in ship, but what it defines is sent anyway")
        spec = find_spec(name)
        if spec is None:
            raise ConfigurationError(f"{name} is in ship, but there is no such module here")
        if read_text(spec) is None:
            raise ConfigurationError(
                f"{name} is in ship, but is no Python source that could be sent: install it on "
                "the workers"
            )


def check_shared(modules: Mapping[str, str | None]) -> None:
    """Checks that workers in processes of their own can have the back-ends of a pool.

    Args:
        modules: where they come from, by name; None: they exist in this process only.

    Raises:
        PluginError: they cannot.
    """
    for name, module in modules.items():
        if module is None:
            raise PluginError(
                f"{name!r} is known to this process only, so workers in processes of their own "
                "cannot have it: register a module that they can import, or use the transport "
                "'memory'"
            )
