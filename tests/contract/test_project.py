"""Modules of the user's own project: by reference or sent, they are the same everywhere."""

from __future__ import annotations

import traceback
from types import ModuleType
from typing import Any

import pytest

import wool
from contract.project import inner, jobs, kinds, streams
from contract.project.inner import state
from contract.project.kinds import Box, Broken, Colour, Frozen, Mask, Pair, Point, Worse
from support.parity import AND_SERVED_BY_ALL, Place

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("place"),
    pytest.mark.parametrize("place", AND_SERVED_BY_ALL, indirect=True, scope="module"),
]


@pytest.fixture
def sent(place: Place) -> bool:
    """Whether modules have to be sent."""
    return place.name.startswith("served-")


async def test_all_kinds_of_things_are_there() -> None:
    expected = await jobs.check.__wrapped__()  # type: ignore[attr-defined]
    assert await jobs.check() == expected
    assert expected[:2] == [6, 2]


async def test_classes_are_the_same_on_both_sides() -> None:
    values = (Point(1, 2), Colour.RED, Pair(1, 2), Box(Point(3)), Frozen(4))
    before: dict[type, dict[str, Any]]
    before = {cls: dict(vars(cls)) for cls in (Point, Box, Frozen)}
    assert await jobs.same(*values) == [True] * 5
    back = await jobs.echo(*values, Point, Mask.A | Mask.B, Box[int], kinds.UserId)
    assert back == (*values, Point, Mask.A | Mask.B, Box[int], kinds.UserId)
    assert back[1] is Colour.RED and type(back[0]) is Point
    # Pickling itself adds a name to a class; what was there has stayed.
    assert all(vars(cls)[name] is value for cls in before for name, value in before[cls].items())


async def test_exceptions() -> None:
    assert await jobs.catch(Worse(code=1)) == "worse"
    assert await jobs.catch(Broken(code=1)) == "broken"
    with pytest.raises(Broken) as raised:
        await jobs.fail(7)
    assert type(raised.value) is Worse and raised.value.code == 7
    assert type(raised.value.__cause__) is Broken
    assert "raise Worse(code=code) from cause" in "".join(traceback.format_exception(raised.value))


async def test_imports_inside_of_functions(sent: bool) -> None:
    assert await jobs.shift(Point(1, 2)) == Point(2, 2)

    @wool.routine
    async def here(point: Any) -> Any:
        import contract.project.inner.late as late
        from contract.project import kinds

        return late.shift(point), type(point) is kinds.Point, kinds.plus(1, 1)

    assert await here(Point(1)) == (Point(2), True, 4)
    if not sent:
        assert await jobs.by_name("dynamic") == 42


async def test_what_cannot_be_imported(sent: bool) -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'contract_nothing'") as raised:
        await jobs.missing(False)
    assert raised.value.name == "contract_nothing"
    with pytest.raises(ModuleNotFoundError, match="contract.project.nothing") as inside:
        await jobs.missing(True)
    assert inside.value.name == "contract.project.nothing"
    assert await jobs.optional() == "without"
    if sent:
        for error, name in [(raised.value, "contract_nothing"), (inside.value, "contract")]:
            assert f"ship=['{name}']" in str(error)
            assert " on worker " in str(error) and "Install it there" in str(error)


async def test_routines_of_several_modules_call_one_another() -> None:
    assert await jobs.add_all(5) == 10
    assert await jobs.consume(streams.numbers(5)) == 10
    assert len(await jobs.nested(6, [])) == 7
    assert [n async for n in jobs.Counter.count(3)] == [0, 1, 2]
    counter = await jobs.Counter.make(3)
    assert type(counter) is jobs.Counter
    assert (await counter.plus(4)).value == 7


async def test_functions_as_values() -> None:
    assert await jobs.apply(kinds.plus, 1, 2) == 6
    assert await jobs.apply(kinds.square, 3) == 9
    assert await jobs.apply(lambda x: kinds.plus(x, len(kinds.LIMITS)), 1) == 6
    assert (await jobs.echo(kinds.plus))[0] is kinds.plus
    assert (await jobs.echo(jobs.put))[0] is jobs.put
    assert await jobs.apply(Point(1).__eq__, Point(1)) is True


async def test_modules_as_values() -> None:
    back = await jobs.echo(kinds, inner, state)
    assert all(type(module) is ModuleType for module in back)
    assert back == (kinds, inner, state)
    assert await jobs.apply(lambda module: module.Colour.RED is kinds.Colour.RED, kinds) is True


async def test_classes_that_are_made_in_functions() -> None:
    made, function = await jobs.made(2)
    assert isinstance(made, Point) and made.all() == 6
    assert function(1) == 6
    again, _ = await jobs.echo(made, function)
    assert type(again) is type(made)

    class Here(Point):
        def twice(self) -> int:
            return kinds.plus(self.x, self.y)

    here = Here(1, 2)
    (back,) = await jobs.echo(here)
    assert type(back) is Here and back.twice() == 6
    assert await jobs.apply(lambda value: isinstance(value, Point) and value.twice(), here) == 6
