"""Modules that travel: what is sent of them, and what becomes of it where it arrives."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wool._code.modules import Modules
from wool._code.received import ReceivedModules
from wool._code.rules import Rules
from wool._code.sources import Source, module_key
from wool._code.units import MissingCode

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes modules into a folder on the path; their names are forgotten afterwards."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**sources: str) -> None:
        for name, text in sources.items():
            path = tmp_path / f"{name.replace('__', '/', 1)}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        importlib.invalidate_caches()

    yield write
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tr_a", "tr_b")]:
        del sys.modules[name]


@pytest.fixture
def received() -> Iterator[ReceivedModules]:
    """Where modules arrive, in a process that has not imported them."""
    received = ReceivedModules("worker 1 on here")
    yield received
    received.leave()


def sources(home: Modules) -> dict[str, Source]:
    return {source.name: source for source in map(Source.load, (u.data for u in home.units()))}


def test_what_a_module_imports_goes_along(write: Write) -> None:
    write(
        tr_a="from tr_b import one\ndef f():\n  from tr_b.two import x\nnames = ['tr_b.late']\n",
        tr_b____init__="",
        tr_b__one="import json, numpy",
        tr_b__two="from . import three",
        tr_b__three="",
        tr_b__late="",
        tr_b__never="",
    )
    module = importlib.import_module("tr_a")
    importlib.import_module("tr_b.late")
    home = Modules(Rules(travels=True))
    assert home.qualified_name(module.f) == ("tr_a", "f")
    assert set(sources(home)) == {
        "tr_a",
        "tr_b",
        "tr_b.one",
        "tr_b.two",
        "tr_b.three",
        "tr_b.late",
    }
    assert "tr_b.two" not in sys.modules
    listed = Modules(Rules(travels=True, ship=("tr_b",)))
    listed.qualified_name(module.f)
    assert "tr_b.never" in sources(listed)
    assert Modules(Rules(travels=True, by_reference=("tr_a",))).qualified_name(module.f) is None
    assert Modules().qualified_name(module.f) is None


def test_packages_without_a_file_of_their_own(write: Write, tmp_path: Path) -> None:
    """Also those in one another that nothing has imported yet."""
    folder = tmp_path / "tr_b" / "inner" / "most"
    folder.mkdir(parents=True)
    (folder / "deep.py").write_text("value = 1")
    write(tr_a="def f():\n  from tr_b.inner.most import deep, absent\n  import tr_b.none.such")
    module = importlib.import_module("tr_a")
    home = Modules(Rules(travels=True))
    assert home.qualified_name(module.f) == ("tr_a", "f")
    packages = {"tr_b", "tr_b.inner", "tr_b.inner.most"}
    assert set(sources(home)) == {"tr_a", "tr_b.inner.most.deep", *packages}
    assert all(sources(home)[name].package for name in packages)
    assert "tr_b" not in sys.modules


def test_what_is_installed_or_belongs_to_python_stays() -> None:
    import json.decoder

    import numpy as np

    import wool

    home = Modules(Rules(travels=True))
    for thing in (json.decoder.JSONDecoder, np.linalg.LinAlgError, wool.WorkerPool, pytest.raises):
        assert home.qualified_name(thing) is None
    assert home.units() == []


def test_an_older_edition_changes_nothing(write: Write, received: ReceivedModules) -> None:
    write(tr_a="VALUE = 1\nclass A: pass\n")
    home = Modules(Rules(travels=True))
    module = importlib.import_module("tr_a")
    home.qualified_name(module.A)
    old = home.units()
    version = home.version()
    write(tr_a="VALUE = 2\nclass A: pass\n")
    importlib.reload(module)
    assert home.version() != version
    new = home.units()
    forget()
    for unit in [*new, *old]:
        received.add(unit)
    assert received.find("tr_a").VALUE == 2


def test_nothing_runs_before_all_is_there(write: Write, received: ReceivedModules) -> None:
    write(tr_a="import tr_b.one\nclass A: pass\n", tr_b____init__="", tr_b__one="")
    home = Modules(Rules(travels=True))
    home.qualified_name(importlib.import_module("tr_a").A)
    units = {Source.load(unit.data).name: unit for unit in home.units()}
    forget()
    received.add(units["tr_a"])
    with pytest.raises(MissingCode) as missing:
        received.find("tr_a")
    assert missing.value.key in (module_key("tr_b"), module_key("tr_b.one"))
    assert "tr_a" not in received.imported()
    received.add(units["tr_b"])
    received.add(units["tr_b.one"])
    assert received.find("tr_a").tr_b is received.find("tr_b")
