"""Runs tests against the built wheels on every Python there is, with the oldest and the newest of
what they need: `make compat`.

    python tests/publishing/compat.py [--only 3.12] [--oldest | --newest] [what pytest gets]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from publishing.kit import PYTHONS, ROOT, Environment, build, interpreter, lowest, wheels

TESTS = ["tests/unit", "tests/contract"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PYTHONS, help="one version of Python")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--oldest", action="store_true", help="only with the oldest dependencies")
    group.add_argument("--newest", action="store_true", help="only with the newest")
    options, rest = parser.parse_known_args()
    versions = [options.only] if options.only else PYTHONS
    ages = [age for age in ("oldest", "newest") if not (options.oldest or options.newest)]
    ages = ages or (["oldest"] if options.oldest else ["newest"])
    with tempfile.TemporaryDirectory() as folder:
        results = dict(run_all(Path(folder), versions, ages, rest or TESTS))
    for what, passed in results.items():
        print(f"{what}: {'passed' if passed else 'FAILED'}")
    return 0 if all(results.values()) else 1


def run_all(
    folder: Path, versions: list[str], ages: list[str], tests: list[str]
) -> Iterator[tuple[str, bool]]:
    dist = build(folder / "dist")
    for version in versions:
        found = interpreter(version)
        for age in ages:
            what = f"Python {version} with the {age} dependencies"
            if found is None:
                yield f"{what} (there is no such Python)", False
                continue
            print(f"\n{what}", flush=True)
            environment = Environment(folder / f"{version}-{age}", found)
            environment.install(
                *wheels(dist),
                *("--find-links", dist, "wool-core[all]", "--group", "test"),
                constraints=lowest() if age == "oldest" else [],
            )
            yield what, run(environment, tests)


def run(environment: Environment, tests: list[str]) -> bool:
    command = [str(environment.bin / "python"), "-m", "pytest", "-q", *tests]
    return subprocess.run(command, cwd=ROOT).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
