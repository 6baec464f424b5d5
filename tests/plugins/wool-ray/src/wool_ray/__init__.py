"""Launcher `ray`: workers run on the nodes of a Ray cluster, with the resources they ask for."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from wool.abc import Launcher
from wool.plugins import LauncherPlugin, hookimpl

SAID = re.compile(r"^wool-ray: (.*)$", re.MULTILINE)
"""What the bridge itself has said, among what workers print."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of the launcher."""

    address: Annotated[str, "Of the cluster; `auto`: the one of this machine or RAY_ADDRESS."] = (
        "auto"
    )
    cpus: Annotated[float, "CPUs of a worker."] = 1.0
    gpus: Annotated[float, "GPUs of a worker."] = 0.0
    resources: Annotated[tuple[str, ...], "More of what a worker needs, as `tpu=1`."] = ()
    spread: Annotated[bool, "Whether workers go to different nodes rather than to one."] = True
    python: Annotated[str, "The interpreter there; unset: the one that Ray uses."] = ""

    def __post_init__(self) -> None:
        for resource in self.resources:
            if not re.fullmatch(r"[^=]+=\d+(\.\d+)?", resource):
                raise ValueError(f"{resource!r} is no resource with an amount, such as tpu=1")


class RayLauncher(Launcher):
    """Starts each worker by a bridge, which is a driver of Ray's with one actor."""

    elsewhere = True

    def __init__(self, options: Options) -> None:
        needs = dict(resource.split("=") for resource in options.resources)
        actor = {
            "num_cpus": options.cpus,
            "num_gpus": options.gpus,
            "resources": {name: float(amount) for name, amount in needs.items()},
            "scheduling_strategy": "SPREAD" if options.spread else "DEFAULT",
        }
        self._order = json.dumps([options.address, options.python, actor])

    def command(self, slot: int, arguments: Sequence[str]) -> Sequence[str]:
        return [sys.executable, "-m", "wool_ray.bridge", self._order, *arguments]

    def explain(self, slot: int, code: int | None, said: str) -> str:
        found = SAID.findall(said)
        return found[-1] if found else said

    def explain_loss(self, slot: int, code: int, said: str) -> str:
        found = SAID.findall(said)
        return f"was lost with its actor: {found[-1]}" if code == 1 and found else ""


@hookimpl
def wool_launchers() -> Iterable[LauncherPlugin]:
    """Registers the launcher."""
    yield LauncherPlugin(name="ray", api=1, options=Options, factory=RayLauncher)
