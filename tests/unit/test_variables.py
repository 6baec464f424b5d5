"""Names of context variables: where they are looked for, and whose they are."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from wool._code.modules import Modules
from wool._values.variables import MOST_NAMES, Identity, VariableTable

HERE = Modules()


class Sent(Modules):
    """Modules, one of which was sent here."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__()
        self.module = module

    def imported(self) -> dict[str, ModuleType]:
        return {self.module.__name__: self.module}


class Lazy(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AssertionError(f"{name} was asked for")


def test_strange_things_among_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    variable: ContextVar[int] = ContextVar("v")
    lazy = Lazy("a_lazy_module")
    vars(lazy)["v"] = variable
    monkeypatch.setitem(sys.modules, "nothing_at_all", None)
    monkeypatch.setitem(sys.modules, "a_lazy_module", lazy)
    identity = VariableTable().identify(variable, HERE)
    assert isinstance(identity, Identity)
    assert identity.names == ("a_lazy_module:v",)


def test_a_variable_that_many_modules_import(monkeypatch: pytest.MonkeyPatch) -> None:
    variable: ContextVar[int] = ContextVar("v")
    for n in range(20):
        module = ModuleType(f"importing_{n}")
        vars(module)["v"] = variable
        monkeypatch.setitem(sys.modules, module.__name__, module)
    identity = VariableTable().identify(variable, HERE)
    assert isinstance(identity, Identity)
    assert len(identity.names) == MOST_NAMES


def test_modules_that_were_sent_have_names_for_one_pool() -> None:
    """Two pools may have sent two versions of a module."""
    table = VariableTable()
    versions = [ModuleType("a_project") for _ in range(2)]
    for module in versions:
        vars(module)["v"] = ContextVar("v")
    for module in versions:
        sent: Modules = Sent(module)
        assert table.find(b"", ("a_project:v",), sent) is vars(module)["v"]
        assert table.identify(vars(module)["v"], sent) == Identity(("a_project:v",))
    assert table.find(b"", ("a_project:v",), HERE) is None


def test_a_name_that_is_bound_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook: code that was sent before may use the first variable still."""
    module = ModuleType("a_notebook")
    monkeypatch.setitem(sys.modules, "a_notebook", module)
    table = VariableTable()
    variables: list[ContextVar[int]] = [ContextVar("v") for _ in range(2)]
    identities: list[Identity] = []
    for variable in variables:
        vars(module)["v"] = variable
        identity = table.identify(variable, HERE)
        assert isinstance(identity, Identity)
        identities.append(identity)
    assert identities[0].names == identities[1].names
    assert [table.find(i.origin, i.names, HERE) for i in identities] == variables


def test_a_module_that_is_loaded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere its name means the newest variable."""
    from contract import variables as here

    table = VariableTable()
    first = table.identify(here.plain, HERE)
    again: ContextVar[int] = ContextVar("plain")
    old = here.plain
    monkeypatch.setattr(here, "plain", again)
    monkeypatch.setitem(here.VARIABLES, "plain", again)
    assert table.identify(again, HERE) == first
    assert table.identify(old, HERE) is None


def test_a_module_of_ones_own_is_imported_for_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "brought_here.py").write_text("import contextvars\nv = contextvars.ContextVar('v')")
    (tmp_path / "broken_here.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    table = VariableTable()
    assert table.find(b"", ["brought_here:v"], HERE) is None
    assert table.bring(["broken_here:v", "nowhere_to_be_found:v", "brought_here:v"], HERE)
    assert "brought_here" in sys.modules
    assert table.bring(["this:v"], HERE) is None
    assert "this" not in sys.modules
    for name in ("brought_here", "broken_here"):
        sys.modules.pop(name, None)
