"""The report of a process on itself and on the calls in it.

The structs travel in the frame `Report`, and are what `pool.calls()` returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

MOST_CALLS = 2000
"""So many calls of each kind a process tells of: looking at more would take long."""


class Line(msgspec.Struct, frozen=True, array_like=True):
    """A place in code: a file, the number of a line, and the function it belongs to."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}, in {self.function}"


class CallStatus(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A call, as the process that serves it or the one that made it sees it.

    Attributes:
        id: unique among the calls of a pool; in its process, while no worker has it.
        parent: id of the call that it was made from; empty if it was made outside of one.
        routine: qualified name of the function.
        state: `unsent` (no worker has it), `sent` (as its caller knows it), `pending` (it waits for
            its turn on the worker), `running`, `suspended` (a stream between two steps), `waiting`
            (for another call), `blocked` (it keeps its event loop from turning) or `debugged`
            (a debugger has stopped it).
        age: seconds since it was received, or sent.
        steps: how many steps a stream has been asked for; 0 for other calls.
        worker: the process that serves it: `worker 12 on host`, or the address of that.
        caller: who made it: `host:port`, or `unix socket`.
        stack: where it stands, outermost first; lines of the user's code alone.
    """

    id: str
    parent: str = ""
    routine: str
    state: str
    age: float = 0.0
    steps: int = 0
    worker: str = ""
    caller: str = ""
    stack: tuple[Line, ...] = ()


class ProcessStatus(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A process that serves or makes calls.

    Attributes:
        key: identifies it; what a process does as a worker and as a caller is told apart.
        pid, host: where it runs.
        program: the script that it runs. Its arguments may be secret, and are not told.
        worker: its id as a worker; empty if it is none.
        python, version: of Python and of wool-core.
        load: calls begun or waiting.
        memory: resident bytes; 0 if that cannot be known.
        connections: of callers, to a worker.
        blocked: where the main thread stands, if its loop has not turned when it was asked to.
        serves: the calls that run here.
        makes: those that were made here and have not ended.
        omitted: how many further ones there are.
        uptime: seconds since it began to serve.
        cpu: seconds of processor time that it has used.
        ended: how many calls have ended here.
        delay: seconds until its main loop came round, when it was asked to; at most a tenth.
    """

    key: bytes
    pid: int
    host: str
    program: str = ""
    worker: str = ""
    python: str = ""
    version: str = ""
    load: int = 0
    memory: int = 0
    connections: int = 0
    blocked: tuple[Line, ...] = ()
    serves: tuple[CallStatus, ...] = ()
    makes: tuple[CallStatus, ...] = ()
    omitted: int = 0
    uptime: float = 0.0
    cpu: float = 0.0
    ended: int = 0
    delay: float = 0.0


def shortened(status: ProcessStatus) -> ProcessStatus:
    """Leaves out half of the calls, those that came last."""
    serves, makes = status.serves, status.makes
    kept = serves[: len(serves) // 2], makes[: len(makes) // 2]
    gone = len(serves) + len(makes) - len(kept[0]) - len(kept[1])
    return msgspec.structs.replace(
        status, serves=kept[0], makes=kept[1], omitted=status.omitted + gone
    )


def merged(one: ProcessStatus, other: ProcessStatus) -> ProcessStatus:
    """Puts together what a process has told several who asked: to each, of one pool."""
    makes = {call.id: call for call in (*one.makes, *other.makes)}
    worker = one if one.worker else other
    return msgspec.structs.replace(worker, makes=tuple(makes.values()))


def document(value: object) -> Any:
    """Returns what JSON can say of a status."""
    if isinstance(value, msgspec.Struct):
        return {name: document(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, (tuple, list)):
        return [document(item) for item in cast("Sequence[object]", value)]
    return value.hex() if isinstance(value, bytes) else value
