"""Names of context variables: where they are looked for, and whose they are."""

from __future__ import annotations

import copy
import sys
from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from wool._serialization.arrivals import Arrivals
from wool._serialization.owners import is_library, owner
from wool._serialization.variables import VARIABLES, Identity, Nameless, VariableTable


class Pretender:
    """Says that it is a module, and has no globals."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        return ModuleType

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return ModuleType
        raise AttributeError(name)


class Lazy(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AssertionError(f"{name} was asked for")


def test_strange_things_among_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    variable: ContextVar[int] = ContextVar("v")
    lazy = Lazy("a_lazy_module")
    vars(lazy)["v"] = variable
    monkeypatch.setitem(sys.modules, "a_pretender", Pretender())
    monkeypatch.setitem(sys.modules, "nothing_at_all", None)
    monkeypatch.setitem(sys.modules, "a_lazy_module", lazy)
    identity = VariableTable().identify(variable, None, {})
    assert isinstance(identity, Identity)
    assert identity.names == ("a_lazy_module:v",)


def test_a_type_without_a_namespace() -> None:
    """As C code leaves it that forgot `PyType_Ready`: Python 3.11's own has such a one."""
    pytest.importorskip("_testcapi")
    variable: ContextVar[int] = ContextVar("v")
    assert isinstance(VariableTable().identify(variable, None, {}), Nameless)


def test_the_module_that_defines_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    variable: ContextVar[int] = ContextVar("v")
    for n in range(9):
        module = ModuleType(f"importing_{n}")
        vars(module)["v"] = variable
        monkeypatch.setitem(sys.modules, module.__name__, module)
    from contract import variables as here

    identity = VariableTable().identify(variable, None, {})
    assert isinstance(identity, Identity)
    assert len(identity.names) == 4
    monkeypatch.setitem(vars(here), "v", variable)
    monkeypatch.setattr(here, "plain", here.plain)
    other = VariableTable().identify(here.plain, None, {})
    assert isinstance(other, Identity)
    assert other.names[0] == "contract.variables:plain"


def test_modules_that_were_sent_have_names_for_one_pool() -> None:
    """Two pools may have sent two versions of a module."""
    table = VariableTable()
    versions = [ModuleType("a_project") for _ in range(2)]
    for module in versions:
        vars(module)["v"] = ContextVar("v")
    for module in versions:
        sent = {"a_project": module}
        assert table.find(b"", ("a_project:v",), sent) is vars(module)["v"]
        assert table.identify(vars(module)["v"], None, sent) == Identity(("a_project:v",))
    assert table.find(b"", ("a_project:v",), {}) is None


def test_a_name_that_is_bound_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook: the name is that of the newest variable."""
    module = ModuleType("a_notebook")
    monkeypatch.setitem(sys.modules, "a_notebook", module)
    table = VariableTable()
    variables: list[ContextVar[int]] = [ContextVar("v") for _ in range(2)]
    vars(module)["v"] = variables[0]
    first = table.identify(variables[0], None, {})
    assert isinstance(first, Identity)
    vars(module)["v"] = variables[1]
    second = table.identify(variables[1], None, {})
    assert second == first
    assert isinstance(table.identify(variables[0], None, {}), Nameless)


@pytest.mark.parametrize("name", ["asyncio", "sys", "pytest", "pluggy"])
def test_libraries(name: str) -> None:
    assert is_library(name)


def test_own_code() -> None:
    assert not is_library(__name__)
    assert not is_library("__main__")
    local: ContextVar[int] = ContextVar("local")
    assert owner(local, None) == __name__


def test_what_nobody_holds_is_a_librarys() -> None:
    import decimal
    from contextvars import copy_context

    decimal.getcontext().prec = 5
    held = {v.name: (v, x) for v, x in copy_context().items()}
    identity = VARIABLES.identify(*held["decimal_context"], {})
    assert isinstance(identity, Nameless)
    assert not identity.complaint


class Listener:
    def settle_contexts(self) -> None: ...


def test_workers_that_begin_while_variables_arrive() -> None:
    """Workers of several threads listen to the imports of all; here one at each step."""
    arrivals = Arrivals()
    kept: list[Listener] = []

    def begin(*_: object) -> Any:
        if len(kept) < 1000:
            kept.append(Listener())
            arrivals.listen(kept[-1])
        return begin

    begin()
    before = sys.gettrace()
    sys.settrace(begin)
    try:
        arrivals.arrived()
    finally:
        sys.settrace(before)
    assert len(kept) > 2


def test_a_module_that_is_waited_for_and_only_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `runpy` and `pkgutil` do, whose loader has more than what it takes to import it."""
    text = "variable = None"
    (tmp_path / "waited_for_here.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    Arrivals().expect((b"", ("waited_for_here:variable",)))
    spec = find_spec("waited_for_here")
    assert spec is not None
    loader: Any = copy.copy(spec.loader)
    assert loader.get_source("waited_for_here") == text
    module = import_module("waited_for_here")
    assert module.__loader__ is not None
    assert type(module.__loader__).__name__ == "SourceFileLoader"
    del sys.modules["waited_for_here"]
