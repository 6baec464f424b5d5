"""What is published installs: alone, together, on each Python, with the oldest of what it needs."""

from __future__ import annotations

import email
import os
import re
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from publishing.kit import (
    PACKAGES,
    PYTHONS,
    ROOT,
    Environment,
    interpreter,
    lowest,
    project,
    wheels,
)

QUICKSTART = ROOT / "docs" / "examples" / "quickstart.py"
TRANSPORTS = ["unix", "memory", "grpc", "ws"]
CLASSIFIERS = {
    "Typing :: Typed",
    "Framework :: AsyncIO",
    "Operating System :: POSIX :: Linux",
    *(f"Programming Language :: Python :: {version}" for version in PYTHONS),
}

pytestmark = pytest.mark.timeout(240)  # packages are fetched
package = pytest.mark.parametrize("package", PACKAGES)
python = pytest.mark.parametrize("python", PYTHONS)


@pytest.fixture
def environment(python: str, tmp_path: Path) -> Environment:
    found = interpreter(python)
    if found is None:
        pytest.skip(f"there is no Python {python}")
    return Environment(tmp_path / "environment", found)


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


# What is in them


@package
def test_wheel(package: str, dist: Path):
    module = "wool" if package == "wool-core" else package.replace("-", "_")
    with zipfile.ZipFile(*wheels(dist, [package])) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} <= {
        module,
        package.replace("-", "_"),
    }
    assert f"{module}/py.typed" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert not any(word in name for name in names for word in ("__pycache__", "test_", ".pyc"))


@package
def test_sdist(package: str, dist: Path):
    with tarfile.open(next(dist.glob(f"{package.replace('-', '_')}-*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "PKG-INFO"} <= names
    others = {name for name in names if not name.startswith("src/")}
    assert others <= {
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "PKG-INFO",
        "CHANGELOG.md",
        ".gitignore",
    }


@package
def test_metadata(package: str, dist: Path):
    found = metadata(*wheels(dist, [package]))
    assert found["Name"] == package
    assert found["Requires-Python"] == "<3.15,>=3.11"
    assert found["License-Expression"] == "Apache-2.0"
    assert found["Summary"] and len(found["Summary"]) < 120
    assert found["Keywords"]
    assert set(found.get_all("Classifier", [])) >= CLASSIFIERS


@package
def test_readme_renders(package: str, dist: Path):
    """As the page of the package shows it, where there are no other files to link to."""
    from readme_renderer import markdown

    found = metadata(*wheels(dist, [package]))
    assert found["Description-Content-Type"] == "text/markdown"
    text = found.get_payload()
    assert isinstance(text, str)
    rendered = markdown.render(text)
    assert rendered is not None
    assert re.findall(r'href="(?!https:|#)[^"]*"', rendered) == []


def test_extras():
    """`all` is everything for users; what Wool's own packages provide has an extra of its name."""
    extras = project("wool-core")["optional-dependencies"]
    [everything] = extras["all"]
    assert set(re.findall(r"[\w-]+", everything.partition("[")[2])) == set(extras) - {
        "all",
        "testing",
    }
    for package in set(PACKAGES) - {"wool-core"}:
        [requirement] = extras[package.removeprefix("wool-")]
        assert requirement.startswith(f"{package}>=")


# That they install and work


def check_transports(environment: Environment) -> None:
    for transport in TRANSPORTS:
        printed = environment.run("python", "-I", "-W", "error", QUICKSTART, transport)
        assert "1 + 2 = 3" in printed


@python
@package
def test_alone(package: str, environment: Environment, dist: Path):
    """With wool-core, which all others need, and nothing else of ours."""
    environment.install(*wheels(dist, {"wool-core", package}))
    environment.run("wool", "plugins", "--check")


@python
def test_together(environment: Environment, dist: Path):
    environment.install(*wheels(dist), "--find-links", dist, "wool-core[all]")
    environment.run("wool", "plugins", "--check")
    check_transports(environment)


@pytest.mark.parametrize("python", PYTHONS[:-1])  # the oldest have no wheels for the newest
def test_with_the_oldest(environment: Environment, dist: Path):
    """`make compat` runs more tests with these."""
    environment.install(*wheels(dist), "--find-links", dist, "wool-core[all]", constraints=lowest())
    environment.run("wool", "plugins", "--check")
    check_transports(environment)


def test_there_are_interpreters():
    missing = [version for version in PYTHONS if interpreter(version) is None]
    if missing and not os.environ.get("REQUIRE_TOOLS"):
        pytest.skip(f"there is no Python {', '.join(missing)}")
    assert missing == []
