"""The outcome of a check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How it stands with what was looked at."""

    OK = "ok"
    ADVICE = "advice"
    """It works, but may disappoint."""
    PROBLEM = "problem"
    """It does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The finding about one thing.

    Attributes:
        check: names what was looked at.
        text: what is the case.
        remedy: what to change; empty if nothing has to be.
    """

    check: str
    state: State
    text: str
    remedy: str = ""


def ok(check: str, text: str) -> Finding:
    """It is as it should be."""
    return Finding(check, State.OK, text)


def advice(check: str, text: str, remedy: str) -> Finding:
    """It works, but may disappoint."""
    return Finding(check, State.ADVICE, text, remedy)


def problem(check: str, text: str, remedy: str = "") -> Finding:
    """It does not work; an error of Wool's says by itself what to change."""
    return Finding(check, State.PROBLEM, text, remedy)
