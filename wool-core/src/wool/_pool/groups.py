"""Groups: the workers of a pool that are set up alike."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wool._plugins import lookup
from wool._settings.model import Core
from wool._settings.settings import Settings, blaming
from wool._worker.arguments import labels, positive, several
from wool._worker.lifespan import Enter, checked_lifespan
from wool.abc import Launcher
from wool.exceptions import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Some workers of a pool, which are set up in their own way; see `WorkerPool(groups=…)`.

    Args:
        size: how many, or `(least, most)`; as for a pool.
        tags: labels that they offer, besides those of the pool.
        concurrency: how many calls one of them runs at once; by default as the pool says.
        memory_limit: bytes of memory that one of them may use; by default as the pool says.
        environment: variables, besides those of the pool, or instead of them.
        launcher, lifespan: as for a pool; by default the pool's.
    """

    size: int | tuple[int, int] | None = 1
    tags: Iterable[str] = ()
    concurrency: int | None = None
    memory_limit: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    launcher: str | Launcher | None = None
    lifespan: Enter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlan:
    """A group, checked.

    Attributes:
        least, most: how many workers it starts at least, and at most.
        launcher: what starts them.
        environment: variables that they have in addition.
        lifespan: what they enter before they are called.
    """

    least: int
    most: int
    tags: frozenset[str]
    concurrency: int | None
    memory_limit: int | None
    environment: Mapping[str, str]
    launcher: Launcher
    lifespan: Enter | None

    @property
    def elsewhere(self) -> bool:
        """Whether it starts workers on other machines."""
        return self.launcher.elsewhere and self.most > 0


def plan_groups(
    given: Iterable[Group] | None, whole: Group, settings: Settings, *, discovering: bool
) -> tuple[GroupPlan, ...]:
    """Returns the groups of a pool.

    Args:
        given: those that it has been given; None: all its workers are alike.
        whole: what holds for all of them.
        discovering: whether it finds other workers as well.

    Raises:
        ConfigurationError, PluginError: something cannot be used, or does not go together.
    """
    if given is None:
        return (_plan_group(whole, whole, settings, discovering),)
    if whole.size is not None:
        raise ConfigurationError("size= along with groups=: give each group its own")
    groups = several("groups", "wool.Group", given)
    if not groups:
        raise ConfigurationError("groups must be at least one wool.Group")
    for group in groups:
        if not isinstance(group, Group):
            raise ConfigurationError(f"groups must be several wool.Group, and {group!r} is none")
    return tuple(_plan_group(group, whole, settings, discovering) for group in groups)


def _plan_group(group: Group, whole: Group, settings: Settings, discovering: bool) -> GroupPlan:
    launcher = group.launcher or whole.launcher
    core, origins = settings.core(
        size=group.size,
        concurrency=positive("concurrency", group.concurrency) or whole.concurrency,
        memory_limit=positive("memory_limit", group.memory_limit) or whole.memory_limit,
        launcher=launcher if isinstance(launcher, str) else None,
    )
    starting = _launcher(launcher, settings, core, origins)
    with blaming(origins["size"]):
        least, most = _sizes(core, starting, discovering)
    return GroupPlan(
        least=least,
        most=most,
        tags=labels(whole.tags) | labels(group.tags),
        concurrency=core.concurrency,
        memory_limit=core.memory_limit,
        environment=_variables(whole.environment) | _variables(group.environment),
        launcher=starting,
        lifespan=checked_lifespan(group.lifespan or whole.lifespan),
    )


def _launcher(given: Any, settings: Settings, core: Core, origins: Mapping[str, str]) -> Launcher:
    """Returns what starts workers.

    Raises:
        ConfigurationError, PluginError: there is no such launcher, or it cannot be made.
    """
    if isinstance(given, Launcher):
        return given
    if given is not None and not isinstance(given, str):
        raise ConfigurationError(
            f"launcher must be a name or an instance of wool.abc.Launcher, not {given!r}"
        )
    with blaming(origins["launcher"]):
        found = lookup.launcher(core.launcher)
    return found.make(settings.options(core.launcher, found.plugin.options)[0])


def _sizes(core: Core, launcher: Launcher, discovering: bool) -> tuple[int, int]:
    """Returns how many workers are started at least, and at most.

    Raises:
        ConfigurationError: the pool would have none, and find none, or more than there is room for.
    """
    size = core.size
    if size is None:
        size = 0 if discovering else launcher.slots or (1 if launcher.elsewhere else _cpus())
    sizes = (size, size) if isinstance(size, int) else size
    if len(sizes) != 2:
        raise ConfigurationError(f"size={size} must be a number, or the least and the most")
    least, most = sizes
    if least > most:
        raise ConfigurationError(f"size={size} has the larger number first: write {(most, least)}")
    if most == 0 and not discovering:
        raise ConfigurationError(
            f"size={size} leaves the pool without workers: give it a size, or a discovery that "
            "finds workers elsewhere"
        )
    if launcher.slots is not None and most > launcher.slots:
        raise ConfigurationError(
            f"size={size} is more than the launcher has room for, {launcher.slots}: give it "
            "more room, or make the pool smaller"
        )
    return least, most


def _cpus() -> int:
    """Returns how many CPUs this process may use, where the system tells that."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _variables(given: Any) -> dict[str, str]:
    """Returns variables of an environment, or raises ConfigurationError."""
    try:
        variables = dict(given)
        words = "".join([*variables, *variables.values()])
        if "" not in variables and "=" not in "".join(variables) and "\0" not in words:
            return variables
    except (TypeError, ValueError):
        pass
    raise ConfigurationError(
        "environment must be names and values, all strings, such as {'OMP_NUM_THREADS': '1'}, not "
        f"{given!r}"
    )
