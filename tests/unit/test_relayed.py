"""Modules that a pool inside of a routine sends on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wool._code.modules import Modules
from wool._code.received import ReceivedModules
from wool._code.rules import Rules
from wool._code.sources import Source, module_key
from wool._code.units import CodeUnit, digest


@pytest.fixture
def received() -> Iterator[ReceivedModules]:
    """One module, `rl_sent`, that is shown in `sys.modules`."""
    received = ReceivedModules("here")
    data = Source("rl_sent", False, "/far/away/rl_sent.py", "import json").dump()
    received.add(CodeUnit(digest(data), data, (module_key("rl_sent"),)))
    received.find("rl_sent")
    yield received
    received.leave()


@pytest.mark.parametrize("ship", [("rl_sent",), ("rl_own",)])
def test_what_was_sent_is_sent_on_as_it_came(
    ship: tuple[str, ...],
    received: ReceivedModules,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And not besides as what this process finds under the name: its workers would load it anew."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "rl_own.py").write_text("import rl_sent\ndef f(): ...", encoding="utf-8")
    importlib.invalidate_caches()
    try:
        own = importlib.import_module("rl_own")
        relayed = Modules(received=received).within("pool", Rules(travels=True, ship=ship))
        relayed.mention(own.f)
    finally:
        del sys.modules["rl_own"]
    names = [Source.load(unit.data).name for unit in relayed.units()]
    assert sorted(names) == ["rl_own", "rl_sent"]
    (sent,) = received.units()
    assert sent in relayed.units()
