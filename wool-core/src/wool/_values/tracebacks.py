"""Tracebacks as plain data, and back; and exceptions with theirs as text.

Only what a traceback shows travels: file, line, name, the text of the line and which columns of
it to underline. Locals never do. The rebuilt objects are real tracebacks: they can be raised,
printed and sent on.
"""

from __future__ import annotations

import ast
import linecache
import os
import socket
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from types import CodeType, FrameType, FunctionType, TracebackType
from typing import Any, cast

from wool._protocol.frames import Summary
from wool._texts import clean, message_of, name_of, tried

Entry = tuple[str, int, str, str | None, int, int, int]
"""Filename, line number, name of the function, text of the line if it is known, first column and
end column in bytes (-1 if not known, or if the expression continues on the next line), and the line
at which the function begins, from which IPython shows it."""

Frames = tuple[Entry, ...]

REMOTE_CALL = "<remote call>"
"""Name of the entry that separates the frames of one process from those of the next."""

BELOW = "# the lines below ran there"
"""The text of that entry's only line, for those who show the source of each frame."""

MAX_FRAMES = 400
"""Of a longer traceback, as a runaway recursion has it, only the two ends travel."""

MAX_CODE = 512
"""So many frames that were shown are kept, for when the same is raised again."""

MAX_EXCEPTIONS = 10
"""So many causes and members are described in a summary, not counting the exception itself."""

MAX_LINE = 500
MAX_LINENO = 200_000


def process_label(role: str = "worker") -> str:
    """Labels this process, for `capture`."""
    return f"<{role} pid {os.getpid()} on {socket.gethostname()}>"


def capture(
    tb: TracebackType | None, label: str | None = None, end: TracebackType | None = None
) -> Frames | None:
    """Extracts what a traceback shows, without Wool's own frames.

    Args:
        label: if given, an entry of this filename goes in front, so that a reader sees where the
            frames below ran. Frames which came from elsewhere as a whole keep only their own.
        end: where to stop, if it is come to.
    """
    if tb is None or (not (steps := _steps(tb, end)) and end is not None):
        return None
    known: dict[tuple[int, int], Entry] = {}
    entries = [_entry(step, known) for step in _cut(steps)]
    if label is not None and not (entries and entries[0][2] == REMOTE_CALL):
        entries.insert(0, (label, 1, REMOTE_CALL, BELOW, -1, -1, 1))
    return tuple(entries)


def rebuild(frames: Frames | None, tb: TracebackType | None = None) -> TracebackType | None:
    """Makes a traceback that shows `frames`, then `tb`; sees to it that lines can be shown."""
    if not frames:
        return tb
    _remember(frames)
    made: dict[Entry, FrameType] = {}
    for entry in reversed(frames):
        code, place = _code(entry)
        if entry not in made:
            made[entry] = _frame(code)
        tb = TracebackType(tb, made[entry], place, entry[1])
    return tb


# Taking apart


def _steps(tb: TracebackType | None, end: TracebackType | None) -> list[TracebackType]:
    steps: list[TracebackType] = []
    while tb is not None and tb is not end:
        if not _is_own(tb.tb_frame):
            steps.append(tb)
        tb = tb.tb_next
    return steps


def _is_own(frame: FrameType) -> bool:
    """Whether a frame is Wool's; generated wrappers have the user's globals and are not."""
    module = frame.f_globals.get("__name__")
    return isinstance(module, str) and (module == "wool" or module.startswith("wool."))


def _cut(steps: list[TracebackType]) -> Iterable[TracebackType | int]:
    """Replaces the middle of a long traceback by the number of frames left out."""
    if len(steps) <= MAX_FRAMES:
        return steps
    half = MAX_FRAMES // 2
    return [*steps[:half], len(steps) - 2 * half, *steps[-half:]]


def _entry(step: TracebackType | int, known: dict[tuple[int, int], Entry]) -> Entry:
    """Describes one frame; equal ones are one object, which a pickle then has once."""
    if isinstance(step, int):
        return ("<traceback>", 1, f"<{step} frames left out>", None, -1, -1, 1)
    code = step.tb_frame.f_code
    key = id(code), step.tb_lasti
    if key not in known:
        # The line number is None where an instruction has none, whatever typeshed says.
        lineno: int = step.tb_lineno or code.co_firstlineno
        line = _line(code.co_filename, lineno, step.tb_frame.f_globals)
        columns = _columns(code, step.tb_lasti, lineno)
        first = min(code.co_firstlineno, lineno)
        known[key] = (code.co_filename, lineno, code.co_name, line, *columns, first)
    return known[key]


def _line(filename: str, lineno: int, namespace: dict[str, Any]) -> str | None:
    try:
        return linecache.getline(filename, lineno, namespace).rstrip()[:MAX_LINE] or None
    except Exception:  # of the user's own import system, which may be asked for the source
        return None


def _columns(code: CodeType, lasti: int, lineno: int) -> tuple[int, int]:
    """The columns an instruction stems from, if all of them are in one line."""
    if lasti >= 0:
        instructions = islice(code.co_positions(), lasti // 2, None)
        start, end, column, end_column = next(instructions, (None,) * 4)
        if start == end == lineno and column is not None and end_column is not None:
            return column, end_column
    return -1, -1


# Putting together


@lru_cache(MAX_CODE)
def _code(entry: Entry) -> tuple[CodeType, int]:
    """Makes the code of a frame that never runs, and finds the place in it that stems from where
    the frame is.
    """
    filename, lineno, name, _, column, end_column, first = entry
    tree = ast.parse("def remote(): yield")
    for node in ast.walk(tree):
        if isinstance(node, (ast.stmt, ast.expr)):
            node.lineno = node.end_lineno = lineno
            node.col_offset, node.end_col_offset = column, end_column
    function = cast(ast.FunctionDef, tree.body[0])
    function.lineno = first
    code = compile(tree, filename, "exec").co_consts[0].replace(co_name=name, co_qualname=name)
    places = list(code.co_positions())
    place = (lineno, lineno, column, end_column)
    if place not in places:  # columns are not known, or not kept here: -X no_debug_ranges
        place = (lineno, lineno, None, None)
    return code, 2 * places.index(place)


def _frame(code: CodeType) -> FrameType:
    """Makes a frame that never runs.

    It is that of a generator: unlike one that raised, it has no `f_back`, which would keep alive
    everything the loading code had in its locals.
    """
    suspended: Any = FunctionType(code, {"__name__": "<remote>", "__file__": code.co_filename})()
    return suspended.gi_frame


# Showing lines of files that are not here


class _Lines(list[str]):
    """The lines of a file of which only some are known; its place is in `linecache.cache`."""

    def put(self, lineno: int, line: str) -> None:
        # Threads may both extend the list, which then has some empty lines too many.
        self.extend(["\n"] * (lineno - len(self)))
        self[lineno - 1] = line + "\n"


def _remember(frames: Frames) -> None:
    """Tells `linecache` the lines of files that it cannot read here."""
    for filename, lineno, _, line, *_ in frames:
        if line is None or not 0 < lineno <= MAX_LINENO:
            continue
        lines = _lines(filename)
        if lines is not None:
            lines.put(lineno, line)


def _lines(filename: str) -> _Lines | None:
    """Returns the lines to add to, or None if linecache knows the file by itself."""
    cache: dict[str, Any] = linecache.cache  # type: ignore[assignment]
    entry = cache.get(filename)
    if entry is None:
        if _is_readable(filename):
            return None
        # Without a modification time, `linecache.checkcache` leaves the entry alone.
        entry = cache.setdefault(filename, (0, None, _Lines(), filename))
    lines = entry[2] if len(entry) == 4 else None
    return lines if isinstance(lines, _Lines) else None


def _is_readable(filename: str) -> bool:
    """Whether linecache finds a file; it looks for relative names along `sys.path`."""
    if filename.startswith("<") and filename.endswith(">"):
        return False
    if os.path.isabs(filename):
        return os.path.exists(filename)
    return bool(linecache.getlines(filename))


# Exceptions as text, for when they cannot be rebuilt


def summarise(exc: BaseException, label: str | None = None) -> Summary:
    """Describes an exception. Never raises, and never calls `repr` of an exception."""
    text = tried(lambda: "".join(_described(exc, label, set())), "")
    return Summary(name_of(type(exc)), message_of(exc), clean(text))


def _described(exc: BaseException, label: str | None, seen: set[int]) -> Iterator[str]:
    """Yields the text of an exception with its causes; each once, and only so many."""
    name = name_of(type(exc)).removeprefix("builtins.")
    if id(exc) in seen or len(seen) > MAX_EXCEPTIONS:
        yield f"... {name}\n"
        return
    seen.add(id(exc))
    if exc.__cause__ is not None:
        yield from _described(exc.__cause__, label, seen)
        yield "\nThe above exception was the direct cause of the following exception:\n\n"
    elif exc.__context__ is not None and not exc.__suppress_context__:
        yield from _described(exc.__context__, label, seen)
        yield "\nDuring handling of the above exception, another exception occurred:\n\n"
    frames = capture(exc.__traceback__, label)
    if frames is not None:
        yield "Traceback (most recent call last):\n"
        for filename, lineno, function, line, *_ in frames:
            yield f'  File "{filename}", line {lineno}, in {function}\n'
            if line is not None:
                yield f"    {line.strip()}\n"
    message = message_of(exc)
    yield f"{name}: {message}\n" if message else f"{name}\n"
    if isinstance(exc, BaseExceptionGroup):
        members = cast("BaseExceptionGroup[Any]", exc).exceptions
        for number, member in enumerate(members, 1):
            yield f"  +---------------- {number} ----------------\n"
            for text in _described(member, label, seen):
                yield from (f"  | {line}\n" for line in text.splitlines())
