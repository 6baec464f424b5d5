"""Which Python and which packages there are, and whether they go together."""

from __future__ import annotations

import operator
import platform
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from typing import Any

from wool import _namesake
from wool.cli.checks.finding import Finding, ok, problem

OURS = re.compile(r"wool-[a-z]+")

_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)\s*(\[[^\]]*\])?\s*\(?(?P<bounds>[^;)]*)\)?(?P<rest>.*)"
)
_BOUND = re.compile(r"(>=|<=|==|!=|<|>)\s*(\d+(?:\.\d+)*)")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}


def check_installation() -> Iterator[Finding]:
    """Looks at Python, at the distributions of Wool, and at what these need."""
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    yield ok(
        "python",
        f"{platform.python_implementation()} {platform.python_version()}; workers and callers "
        f"must all run {minor}",
    )
    clash = _namesake.problem()
    if clash is not None:
        yield problem("packages", clash)
    found = ours()
    yield ok("packages", ", ".join(f"{name} {one.version}" for name, one in found.items()))
    for name, one in found.items():
        for lacking in unmet(one):
            yield problem(
                "packages",
                f"{name} {one.version} needs {lacking}",
                f"pip install --upgrade {name} '{lacking.partition(',')[0]}'",
            )


def ours() -> dict[str, Distribution]:
    """Returns the distributions of Wool that are installed, by name."""
    found: dict[str, Distribution] = {}
    for one in distributions():
        name = _normal(str(one.metadata["Name"] or ""))
        if OURS.fullmatch(name) and (name == "wool-core" or _needs_core(one)):
            found.setdefault(name, one)
    return dict(sorted(found.items(), key=lambda item: (item[0] != "wool-core", item[0])))


def _needs_core(one: Distribution) -> bool:
    return any(_normal(text).startswith("wool-core") for text in one.requires or ())


def unmet(one: Distribution) -> Iterator[str]:
    """Yields what a distribution requires and is not there, or in another version.

    What it requires only with an extra, or only on some systems, is left to the installer.
    """
    for text in one.requires or ():
        match = _REQUIREMENT.fullmatch(text)
        if match is None or match["rest"].strip():
            continue
        wanted = f"{match['name']}{match['bounds'].strip()}"
        try:
            version = distribution(match["name"]).version
        except PackageNotFoundError:
            yield f"{wanted}, which is not installed"
            continue
        if not _satisfies(version, match["bounds"]):
            yield f"{wanted}, and {version} is installed"


def _satisfies(version: str, bounds: str) -> bool:
    have = _numbers(version)
    return all(_COMPARE[sign](have, _numbers(bound)) for sign, bound in _BOUND.findall(bounds))


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version: of `1.2.0rc1` that is 1, 2."""
    numbers = [int(part) for part in re.findall(r"\d+", version.partition("+")[0].split("rc")[0])]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
