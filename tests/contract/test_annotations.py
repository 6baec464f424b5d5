"""Annotations of classes and functions that travel by value are there as they are here."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]

# As a program has it that does not import annotations from the future: the interpreter evaluates
# them where they stand or, from Python 3.14 on, when somebody asks.
SOURCE = """
import dataclasses, typing, pydantic, wool
from typing import TYPE_CHECKING, NamedTuple, TypedDict

if TYPE_CHECKING:
    from nowhere import Nothing

@dataclasses.dataclass
class Data:
    x: int
    y: "list[str]" = dataclasses.field(default_factory=list)

class Typed(TypedDict, total=False):
    x: int
    y: str

class Named(NamedTuple):
    x: int
    y: str = ""

class Model(pydantic.BaseModel):
    x: int
    y: list[str] = []

@wool.routine
async def told(kind: type) -> dict[str, str]:
    return {name: str(found) for name, found in typing.get_type_hints(kind).items()}

@wool.routine
async def fields() -> list[str]:
    return [field.name for field in dataclasses.fields(Data)]

@wool.routine
async def made(x: str) -> object:
    return Model.model_validate({"x": x, "y": ["a"]})

@wool.routine
async def own() -> dict[str, str]:
    return {name: str(found) for name, found in typing.get_type_hints(helper).items()}

def helper(x: int, y: "str" = "") -> bool:
    return True

@wool.routine
async def for_checkers() -> int:
    return hint(1)

def hint(x: "Nothing") -> int:
    return 3
"""


def program() -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "__main__"}
    define(SOURCE, scope)
    return scope


def define(source: str, scope: dict[str, Any]) -> None:
    """Executes a source as a program of its own, without this file's imports from the future."""
    exec(compile(source, "<program>", "exec", dont_inherit=True), scope)


@pytest.mark.parametrize("kind", ["Data", "Typed", "Named", "Model"])
async def test_of_classes(kind: str) -> None:
    scope = program()
    assert (await scope["told"](scope[kind]))["x"] == "<class 'int'>"


async def test_of_functions() -> None:
    assert await program()["own"]() == {
        "x": "<class 'int'>",
        "y": "<class 'str'>",
        "return": "<class 'bool'>",
    }


async def test_that_something_is_made_of() -> None:
    scope = program()
    assert await scope["fields"]() == ["x", "y"]
    model = await scope["made"]("4")
    assert type(model) is scope["Model"] and model.x == 4


async def test_for_type_checkers_alone() -> None:
    assert await program()["for_checkers"]() == 3
    scope = program()
    unquoted = "def hint(x: Nothing) -> int:\n    return 3"
    try:
        define(unquoted, scope)
    except NameError:
        return  # it was evaluated at once, before Python 3.14
    assert await scope["for_checkers"]() == 3
