"""Definitions made anew while a program runs, as in a notebook, hold for the next call."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import pytest

import wool
from contract.routines import echo
from support.parity import NEAR

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("place"),
    pytest.mark.parametrize("place", NEAR, indirect=True, scope="module"),
]


SCRIPT = """
variable = ContextVar("variable")
@wool.routine
async def look():
    variable.set(variable.get() + 1)
    return variable.get()
count = {start}
def helper(): return "{start}"
@wool.routine
async def use():
    global count
    count += 1
    return count, helper()
"""


def run_script(start: int, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Runs a script in a module of its own, which takes the place of the last one."""
    module = ModuleType(name)
    vars(module).update(wool=wool, ContextVar=ContextVar)
    monkeypatch.setitem(sys.modules, name, module)
    exec(SCRIPT.format(start=start), vars(module))
    return module


def notebook() -> tuple[dict[str, Any], Callable[[str], None]]:
    """The globals of a notebook, and how to run a cell in it."""
    scope: dict[str, Any] = {"wool": wool, "__name__": "contract_notebook"}
    return scope, lambda source: exec(source, scope)


async def test_a_name_that_is_defined_after_it_was_missing() -> None:
    scope, cell = notebook()
    cell("@wool.routine\nasync def use(): return helper()")
    with pytest.raises(NameError):
        await scope["use"]()
    cell("def helper(): return constant")
    with pytest.raises(NameError):
        await scope["use"]()
    cell("constant = 1")
    assert await scope["use"]() == 1


async def test_a_built_in_name_that_is_shadowed() -> None:
    scope, cell = notebook()
    cell("@wool.routine\nasync def use(): return len('four')")
    assert await scope["use"]() == 4
    cell("def len(text): return 'shadowed'")
    assert await scope["use"]() == "shadowed"


async def test_what_the_methods_of_an_argument_use() -> None:
    scope, cell = notebook()
    cell("def helper(): return 'old'")
    cell("class Job:\n    def run(self): return helper(), limit")
    cell("@wool.routine\nasync def run(job): return job.run()")
    cell("@wool.routine\nasync def make(): return Job()")
    cell("limit = 1")
    job, first = scope["Job"](), scope["Job"]
    assert [await scope["run"](job) for _ in range(4)] == [("old", 1)] * 4
    cell("limit = 2")
    assert [await scope["run"](job) for _ in range(4)] == [("old", 2)] * 4
    cell("def helper(): return 'new'")
    assert [await scope["run"](job) for _ in range(4)] == [("new", 2)] * 4
    # It is the same class all the while, in both directions.
    assert scope["Job"] is first
    assert type(await echo(job)) is first
    assert type(await scope["make"]()) is first


async def test_a_script_that_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `runpy` and Streamlit do it: its globals are others, those of the first run stay."""
    first = run_script(10, "contract_script", monkeypatch)
    assert await first.use() == (11, "10")
    second = run_script(20, "contract_script", monkeypatch)
    assert await second.use() == (21, "20")
    for script, start in (first, 10), (second, 20):
        count, text = await script.use()
        assert count in (start + 1, start + 2)  # each worker counts for itself
        assert text == str(start)
