"""When reading is delegated, and how much less often where it does not last."""

from __future__ import annotations

from itertools import count

from wool._worker.streak import LASTING, LEAST, MOST, Streak


def needed(streak: Streak) -> int:
    """Returns how many frames in a row it takes."""
    return next(number for number in count(1) if streak.note(alone=True))


def test_frames_in_a_row() -> None:
    streak = Streak()
    for _ in range(5):
        for _ in range(LEAST - 1):
            assert not streak.note(alone=True)
        assert not streak.note(alone=False)
    assert needed(streak) == LEAST


def test_what_does_not_last() -> None:
    """It takes more and more frames, up to a point; until it has lasted."""
    streak = Streak()
    assert needed(streak) == LEAST
    waits = list[int]()
    for taken in (0, LASTING - 1, 0, 0, 0, 0, 0):
        streak.taken = taken
        waits.append(needed(streak))
    assert waits == [LEAST * factor for factor in (2, 4, 8, 16)] + [MOST] * 3
    streak.taken = LASTING
    assert needed(streak) == LEAST
