"""Back-ends that are broken: what the conformance kits have to find."""

from __future__ import annotations

import pytest

END = "end of "


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a broken back-end, those checks run that are about its defect, and they must fail.

    Where it is the end of a check that must fail, it runs with `--runxfail` alone.
    """
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        caught_by = getattr(getattr(item, "cls", None), "caught_by", None)
        names = {item.name, item.name.partition("[")[0]}
        if not caught_by:
            kept.append(item)
        elif names.intersection(caught_by):
            item.add_marker(pytest.mark.xfail(reason="must be caught", strict=True))
            kept.append(item)
        elif config.option.runxfail and names.intersection(
            check.removeprefix(END) for check in caught_by
        ):
            kept.append(item)
        else:
            dropped.append(item)
    config.hook.pytest_deselected(items=dropped)
    items[:] = kept
