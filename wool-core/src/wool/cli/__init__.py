"""The command `wool`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from wool import _namesake

__all__ = ["main"]


def _complain(**_: object) -> NoReturn:
    """Says why there is no command to run."""
    raise SystemExit(f"wool: {_namesake.problem()}")


if TYPE_CHECKING or _namesake.is_ours():
    from wool.cli.group import main
else:
    main = _complain

cli = main
"""The name by which the script of the other distribution `wool` calls what is here."""
