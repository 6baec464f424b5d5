"""Modules that travel: what is sent of them, and what becomes of it where it arrives."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wool._serialization.arrived import Away
from wool._serialization.rules import Rules
from wool._serialization.sources import Source, module_key
from wool._serialization.travelling import Home
from wool._serialization.units import MissingCode
from wool._serialization.variables import VARIABLES

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
def away() -> Iterator[Away]:
    """Where modules arrive, in a process that has not imported them."""
    away = Away("worker 1 on here")
    yield away
    away.leave()


def sources(home: Home) -> dict[str, Source]:
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
    home = Home(Rules(travels=True))
    assert home.reference(module.f) == ("tr_a", "f")
    assert set(sources(home)) == {
        "tr_a",
        "tr_b",
        "tr_b.one",
        "tr_b.two",
        "tr_b.three",
        "tr_b.late",
    }
    assert "tr_b.two" not in sys.modules
    listed = Home(Rules(travels=True, ship=("tr_b",)))
    listed.reference(module.f)
    assert "tr_b.never" in sources(listed)
    assert Home(Rules(travels=True, by_reference=("tr_a",))).reference(module.f) is None
    assert Home().reference(module.f) is None


def test_what_is_installed_or_belongs_to_python_stays() -> None:
    import json.decoder

    import numpy as np

    import wool

    home = Home(Rules(travels=True))
    for thing in (json.decoder.JSONDecoder, np.linalg.LinAlgError, wool.WorkerPool, pytest.raises):
        assert home.reference(thing) is None
    assert home.units() == []


def test_a_unit_that_comes_again_changes_nothing(write: Write, away: Away) -> None:
    """Workers pass on what they have been sent, also to those that have it."""
    write(tr_a="class A: pass\n")
    home = Home(Rules(travels=True))
    home.reference(importlib.import_module("tr_a").A)
    first = home.units()
    forget()
    for unit in first:
        away.add(unit)
    module = away.find("tr_a")
    cls = module.A
    assert away.reference(cls) == ("tr_a", "A")
    for unit in first:
        away.add(unit)
    away.enter()
    assert away.find("tr_a") is module and module.A is cls


def test_an_older_edition_changes_nothing(write: Write, away: Away) -> None:
    write(tr_a="VALUE = 1\nclass A: pass\n")
    home = Home(Rules(travels=True))
    module = importlib.import_module("tr_a")
    home.reference(module.A)
    old = home.units()
    version = home.version()
    write(tr_a="VALUE = 2\nclass A: pass\n")
    importlib.reload(module)
    assert home.version() != version
    new = home.units()
    forget()
    for unit in [*new, *old]:
        away.add(unit)
    assert away.find("tr_a").VALUE == 2


def test_nothing_runs_before_all_is_there(write: Write, away: Away) -> None:
    write(tr_a="import tr_b.one\nclass A: pass\n", tr_b____init__="", tr_b__one="")
    home = Home(Rules(travels=True))
    home.reference(importlib.import_module("tr_a").A)
    units = {Source.load(unit.data).name: unit for unit in home.units()}
    forget()
    away.add(units["tr_a"])
    with pytest.raises(MissingCode) as missing:
        away.find("tr_a")
    assert missing.value.key in (module_key("tr_b"), module_key("tr_b.one"))
    assert "tr_a" not in away.imported()
    away.add(units["tr_b"])
    away.add(units["tr_b.one"])
    assert away.find("tr_a").tr_b is away.find("tr_b")


def test_variables_are_forgotten_with_their_modules(write: Write) -> None:
    write(tr_a="from contextvars import ContextVar\nclass A: variable = ContextVar('v')\n")
    home = Home(Rules(travels=True))
    home.reference(importlib.import_module("tr_a").A)
    forget()
    away = Away("worker 1 on here")
    for unit in home.units():
        away.add(unit)
    variable = away.find("tr_a").A.variable
    assert VARIABLES.find(b"", ["tr_a:A.variable"], away.imported()) is variable
    known = len(VARIABLES._known)
    away.leave()
    assert len(VARIABLES._known) == known - 1


def test_two_pools_do_not_meet(write: Write) -> None:
    write(tr_a="import tr_b.one\ndef f():\n  import tr_b.one as m\n  return m.WHOSE\n")
    write(tr_b____init__="", tr_b__one="WHOSE = 'ann'")
    pools: list[Away] = []
    for whose in ("ann", "bob"):
        write(tr_b__one=f"WHOSE = {whose!r}\n# {'x' * len(pools)}")
        home = Home(Rules(travels=True))
        home.reference(importlib.import_module("tr_a").f)
        pools.append(Away("worker 1 on here"))
        for unit in home.units():
            pools[-1].add(unit)
        forget()
    try:
        functions = [pool.find("tr_a").f for pool in pools]
        assert [function() for function in functions] == ["ann", "bob"]
        for pool, whose in zip(pools, ("ann", "bob"), strict=True):
            pool.enter()
            assert importlib.import_module("tr_b.one").WHOSE == whose
    finally:
        for pool in pools:
            pool.leave()
    assert not {"tr_a", "tr_b", "tr_b.one"} & sys.modules.keys()
