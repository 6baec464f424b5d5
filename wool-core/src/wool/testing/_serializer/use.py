"""Random values: graphs of objects that share, contain themselves, and hold buffers."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from wool.testing._kit import remedy
from wool.testing._serializer.base import LARGE, Base, Holder, Thing, Trip
from wool.testing._serializer.reducing import Special, special
from wool.testing._serializer.values import SETTINGS

KINDS = st.sampled_from(("list", "dict", "thing", "tuple", "holder", "special", "text"))
STEPS = st.lists(st.tuples(KINDS, st.integers(0, 99), st.integers(0, 99)), max_size=25)


def graph(steps: list[tuple[str, int, int]]) -> list[Any]:
    """Objects, each made of earlier ones; containers get a later one put into them as well."""
    made: list[Any] = [[]]
    for kind, first, second in steps:
        one, other = made[first % len(made)], made[second % len(made)]
        new: Any = {
            "list": lambda: [one, other],  # noqa: B023
            "dict": lambda: {first: one, "other": other},  # noqa: B023
            "thing": lambda: Thing([one, other]),  # noqa: B023
            "tuple": lambda: (one, other),  # noqa: B023
            "holder": lambda: Holder(bytearray([first]) * (LARGE if second % 2 else second)),  # noqa: B023
            "special": lambda: Special(str(first)),  # noqa: B023
            "text": lambda: "ä" * first,  # noqa: B023
        }[kind]()
        if isinstance(other, list):
            other.append(new)  # pyright: ignore[reportUnknownMemberType]
        made.append(new)
    return made


def differ(sent: Any, got: Any) -> str:
    """Says how two graphs differ; each object of one must stand for one of the other."""
    pairs: dict[int, Any] = {}
    todo: list[tuple[Any, Any]] = [(sent, got)]
    while todo:
        one, other = todo.pop()
        if isinstance(one, Special):
            if other != ("stand-in", one.name):
                return f"{other!r} in place of something special"
            continue
        if type(one) is not type(other):
            return f"{type(other)} in place of {type(one)}"
        if isinstance(one, str):
            if one != other:
                return f"{other!r} in place of {one!r}"
            continue
        if id(one) in pairs:
            if pairs[id(one)] is not other:
                return f"a {type(one).__name__} that was the same is another one"
            continue
        pairs[id(one)] = other
        if isinstance(one, Holder):
            if bytes(one.data) != bytes(other.data):
                return "a buffer is another one"
            continue
        parts, others = parts_of(one), parts_of(other)
        if len(parts) != len(others):
            return f"{len(others)} parts in place of {len(parts)}"
        todo += zip(parts, others, strict=True)
    return "" if len({id(other) for other in pairs.values()}) == len(pairs) else "two became one"


def parts_of(value: Any) -> list[Any]:
    """What a container contains."""
    if isinstance(value, dict):
        return [str(value.keys()), *value.values()]  # type: ignore[list-item]
    return list(value.name if isinstance(value, Thing) else value)  # type: ignore[arg-type]


class Use(Base):
    """Part of `SerializerSuite`."""

    @remedy("Repeat it with the value that is printed above; it is as small as it gets.")
    @SETTINGS
    @given(steps=STEPS)
    def test_random_values(self, trip: Trip, steps: list[tuple[str, int, int]]) -> None:
        """Whatever objects refer to each other, they do so on the other side."""
        value = graph(steps)
        assert not differ(value, trip(value, special))
