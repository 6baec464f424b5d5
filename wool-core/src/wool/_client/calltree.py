"""The tree of calls: who awaits whom, put together from what several processes tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from wool._protocol.status import CallStatus, ProcessStatus


class CallNode(Struct, frozen=True):
    """A call in a tree.

    Attributes:
        call: the words of the process that serves it, or else of the one that has made it.
        process: the one that serves it; None if that has not answered, or no worker has the call.
        awaited: the words of the process that has made it, if that has answered.
        children: the calls that were made from it.
    """

    call: CallStatus
    process: ProcessStatus | None
    awaited: CallStatus | None
    children: tuple[CallNode, ...]


class CallTree:
    """The calls that some processes tell of, as trees of who awaits whom.

    Attributes:
        processes: the reports of those processes.
        roots: the calls that were made outside of any call, by the key of the process that has made
            them; those of processes that have not answered are under an empty key.
    """

    def __init__(self, processes: Iterable[ProcessStatus]) -> None:
        self.processes: Sequence[ProcessStatus] = list(processes)
        self._served = {c.id: (c, p) for p in self.processes for c in p.serves}
        self._made = {c.id: (c, p) for p in self.processes for c in p.makes}
        self._inner: dict[str, list[CallStatus]] = {}
        for call in all_calls(self.processes):
            self._inner.setdefault(call.parent, []).append(call)
        self.roots: dict[bytes, list[CallNode]] = {}
        for call in all_calls(self.processes):
            if call.parent not in self._served and call.parent not in self._made:
                _, maker = self._made.get(call.id, (None, None))
                key = b"" if maker is None else maker.key
                self.roots.setdefault(key, []).append(self._node(call))

    def _node(self, root: CallStatus) -> CallNode:
        """Makes the tree below a call, which may be thousands deep: innermost calls first."""
        below = [root]
        for call in below:  # the list grows meanwhile
            below += self._inner.get(call.id, ())
        nodes: dict[str, CallNode] = {}
        for call in reversed(below):
            _, process = self._served.get(call.id, (None, None))
            awaited, _ = self._made.get(call.id, (None, None))
            children = (nodes.pop(inner.id) for inner in self._inner.get(call.id, ()))
            nodes[call.id] = CallNode(call, process, awaited, tuple(children))
        return nodes[root.id]

    def locate(self, ident: str) -> tuple[str, bool]:
        """Says where a call stands, by its id, and whether a debugger has stopped its worker."""
        waits, seen = "", set[str]()
        while ident in self._inner and ident not in seen:  # a report may be false
            seen.add(ident)
            inner = self._inner[ident][0]
            waits += f"it waits for {inner.routine}(): "
            ident = inner.id
        if ident not in self._served:
            return f"{waits}its worker has not said where it stands", False
        call, process = self._served[ident]
        worker = f"worker {process.pid} on {process.host}"
        debugged = any(other.state == "debugged" for other in process.serves)
        if process.blocked:
            where = f"{worker} is blocked at {process.blocked[-1]}"
        elif call.state == "pending":
            where = f"it has not begun on {worker}"
        else:
            where = f"on {worker} it waits" + (f" at {call.stack[-1]}" if call.stack else "")
        return waits + where, debugged

    def around(self, ident: str) -> list[str]:
        """Draws the tree that a call is in, by its id: one line for each call."""
        seen = set[str]()
        while ident not in seen:  # a report may be false
            seen.add(ident)
            call, _ = self._served.get(ident) or self._made.get(ident) or (None, None)
            if call is None or not call.parent:
                break
            ident = call.parent
        roots = [node for nodes in self.roots.values() for node in nodes if node.call.id in seen]
        return list(_draw(roots))

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        by_key = {process.key: process for process in self.processes}
        for key, roots in self.roots.items():
            process = by_key.get(key)
            yield (
                "a process that has not answered"
                if process is None
                else (f"{process.program}  (process {process.pid} on {process.host})")
            )
            yield from _draw(roots)
        omitted = sum(process.omitted for process in self.processes)
        if omitted:
            yield f"and {omitted} further calls"


def all_calls(processes: Iterable[ProcessStatus]) -> list[CallStatus]:
    """Returns each call once: as who serves it tells of it, else as who has made it."""
    processes = list(processes)
    calls = {call.id: call for process in processes for call in process.makes}
    calls |= {call.id: call for process in processes for call in process.serves}
    return list(calls.values())


def _draw(roots: Sequence[CallNode]) -> Iterator[str]:
    waiting = [(node, "", node is roots[-1]) for node in reversed(roots)]
    while waiting:
        node, indent, last = waiting.pop()
        yield f"{indent}{'└─' if last else '├─'} {describe(node)}"
        inner, indent = node.children, indent + ("   " if last else "│  ")
        waiting += ((child, indent, child is inner[-1]) for child in reversed(inner))


def describe(node: CallNode) -> str:
    """Returns a call in a line: its name, what it does, where, and who awaits it where."""
    call, process, awaited = node.call, node.process, node.awaited
    sent = call.state != "unsent"
    words = [f"{call.routine}()", f"{call.state} for {call.age:.1f} s" if sent else call.state]
    if process is not None:
        words.append(f"worker {process.pid} on {process.host}")
        if call.stack:
            words.append(f"at {call.stack[-1]}")
    elif sent:
        words.append("whose worker has not answered")
    if awaited is not None and awaited.stack:
        words.append(f"awaited at {awaited.stack[-1]}")
    return ", ".join(words)
