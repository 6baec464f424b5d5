"""Modules that another process of this installation can import."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from wool._code.modules import Modules
from wool._code.names import findable
from wool._code.rules import Rules


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of two modules whose folder is on the path."""
    name = f"package_{tmp_path.name}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "part.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize(
    "name",
    [
        "builtins",
        "json",
        "os.path",  # `os` is no package
        "collections.abc",
        "pyexpat.errors",  # made by an extension module, without a spec
        "numpy.linalg",
        "cryptography.hazmat.primitives.serialization",  # an object stands in for the module
    ],
)
def test_libraries(name: str) -> None:
    importlib.import_module(name)
    assert findable(name)


def test_every_module_there_is() -> None:
    """Whatever programs put into `sys.modules` is no reason to fail."""
    for name in list(sys.modules):
        assert findable(name) in (True, False)


def test_a_module_that_is_imported_later(package: str) -> None:
    assert not findable(f"{package}.part")
    importlib.import_module(f"{package}.part")
    assert findable(f"{package}.part")


def test_a_replaced_module(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for a module is known by its file."""
    part = importlib.import_module(f"{package}.part")
    stand_in = ModuleType(part.__name__)
    stand_in.__file__ = part.__file__
    monkeypatch.setitem(sys.modules, part.__name__, stand_in)
    assert findable(part.__name__)


def test_another_file_of_the_same_name(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = ModuleType(f"{package}.part")
    stranger.__file__ = "elsewhere.py"
    importlib.import_module(package)
    monkeypatch.setitem(sys.modules, f"{package}.part", stranger)
    assert not findable(f"{package}.part")


def test_a_made_up_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test runners make up packages for folders that are not on the path."""
    spec = importlib.machinery.ModuleSpec("made_up", None, is_package=True)
    monkeypatch.setitem(sys.modules, "made_up", importlib.util.module_from_spec(spec))
    inner = importlib.machinery.ModuleSpec("made_up.inner", None, origin="inner.py")
    monkeypatch.setitem(sys.modules, "made_up.inner", importlib.util.module_from_spec(inner))
    assert not findable("made_up")
    assert not findable("made_up.inner")


@pytest.mark.parametrize("name", ["__main__", "__mp_main__", "no_such_module"])
def test_what_nobody_can_import(name: str) -> None:
    assert not findable(name)


def test_definitions_that_have_to_travel(package: str) -> None:
    """It is known at once, so that nobody looks for their names with each call."""
    importlib.import_module(f"{package}.part")
    assert Modules().may_refer_to(f"{package}.part")
    for name in "__main__", "made_up", None, 7:
        assert not Modules().may_refer_to(name)
        assert not Modules(Rules(travels=True)).may_refer_to(name)
    assert Modules(Rules(by_reference=("made_up",))).may_refer_to("made_up")
    assert Modules(Rules(travels=True)).may_refer_to(f"{package}.part")
