"""The plan of a pool: its arguments and settings, checked, and what follows from them."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, cast

from wool._client.client import Balancer
from wool._code.rules import OUR_OWN, find_spec
from wool._code.sources import read_text
from wool._msgspec import Struct
from wool._plugins import lookup
from wool._pool.groups import Group, GroupPlan, plan_groups
from wool._protocol.frames import CallOptions
from wool._security.credentials import Authenticator, Insecure
from wool._settings.model import Core
from wool._settings.settings import Settings, blaming
from wool._worker.arguments import checked_credentials, labels, positive, several
from wool._worker.backends import ChosenDiscovery, choose_discovery, choose_transport
from wool._worker.placement import credentials_of
from wool.abc import Discovery
from wool.exceptions import ConfigurationError


class Plan(Struct, frozen=True, kw_only=True):
    """The arguments and settings of a pool, checked.

    Attributes:
        origins: where the values of `core` come from.
        groups: the workers that it starts.
        tags: what all workers have to offer.
        discovery: what finds others, if anything does.
        credentials: what is shown to workers on a network, if anything is.
        quorum: how many workers must be ready before it is open.
    """

    settings: Settings
    core: Core
    origins: Mapping[str, str]
    groups: tuple[GroupPlan, ...]
    tags: frozenset[str]
    discovery: ChosenDiscovery | None
    transport: str
    credentials: Authenticator | None
    balancer: Balancer | None
    options: CallOptions
    quorum: int

    @property
    def most(self) -> int:
        """How many workers it starts at most."""
        return sum(group.most for group in self.groups)


def make_plan(
    settings: Settings,
    core: Core,
    origins: Mapping[str, str],
    alike: Group,
    groups: Iterable[Group] | None,
    *,
    discovery: Any,
    balancer: Any,
    credentials: Any,
    quorum: int,
    insecure: bool,
) -> Plan:
    """Checks what a pool is given, and makes its plan.

    Args:
        core, origins: the settings of the pool, and where they come from.
        alike: what holds for all workers that it starts.
        groups: those that are not alike, if there are any.

    The others are as for `WorkerPool`.

    Raises:
        ConfigurationError, PluginError: something cannot be used, or does not go together.
    """
    if balancer is not None and not callable(balancer):
        raise ConfigurationError(f"balancer must be a function, not {balancer!r}")
    found = pool_discovery(discovery, settings, core, origins)
    discovering = found is not None
    own = plan_groups(groups, alike, settings, discovering=discovering)
    least, most = sum(group.least for group in own), sum(group.most for group in own)
    elsewhere = any(group.elsewhere for group in own)
    offered = [sorted(group.tags) for group in own]
    options = call_options(core, offered, discovering=discovering, elsewhere=elsewhere)
    known = pool_credentials(credentials, settings, discovering=discovering, insecure=insecure)
    enough = positive("quorum", quorum) or 1
    return Plan(
        settings=settings,
        core=core,
        origins=origins,
        groups=own,
        tags=labels(alike.tags),
        discovery=found,
        transport=choose_transport(core.transport, found if most else None, elsewhere=elsewhere),
        credentials=known,
        balancer=cast("Balancer | None", balancer),
        options=options,
        quorum=enough if discovering else min(enough, least),
    )


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
        stacklevel=4,  # past `WorkerPool`
    )
    return Insecure()


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


def call_options(
    core: Core, offered: list[list[str]], *, discovering: bool, elsewhere: bool
) -> CallOptions:
    """Returns what holds for all calls of a pool.

    Args:
        offered: the tags of its own workers, group by group.
        discovering: whether there may be other workers.
        elsewhere: whether its own ones are on other machines. Either lack modules of the caller.

    Raises:
        ConfigurationError: modules are to be sent that cannot be, or are not to be too.
    """
    _check_modules(core)
    travels = discovering or elsewhere
    # Where there are own workers and others, each of them knows which it is.
    auto = "caller" if elsewhere else "auto" if discovering else "worker"
    return CallOptions(
        quorum_timeout=core.quorum_timeout,
        cancel_grace=core.cancel_grace,
        travels=travels,
        ship=list(core.ship),
        by_reference=list(core.by_reference),
        context=core.context != "off",
        exclude=list(core.exclude),
        offered=None if travels else offered,
        output=auto if core.output == "auto" else core.output,
        log_level=max(0, logging.root.level),
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
