"""Two machines against each other, whatever is sent and however it is delivered."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from unit.protocolkit import content, joined, opening, raised, receive, returned, value
from wool._protocol import frames as f
from wool._protocol import transfer
from wool._protocol.connection import Machine
from wool._protocol.transfer import Missing

WINDOWS = (1024, 4096, 5000)
CHUNKS = (1024, 1500, 8192)
EDGES = sorted(
    {edge * times + near for edge in WINDOWS + CHUNKS for times in (1, 2) for near in (-1, 0, 1)}
)
sizes = st.lists(
    st.one_of(st.sampled_from([0, 1, *EDGES]), st.integers(0, 3000)), min_size=1, max_size=3
)
sides = st.sampled_from([0, 1])
several = st.lists(sizes, min_size=1, max_size=3)
picks = st.integers(0, 1 << 16)
STEPPING = ["running", "begun"]
OPEN = {"kind": ["call", "stream", "ahead"], "caller": ["running", "suspended", "begun"]}


@dataclass
class Call:
    """A call as the model knows it: what each side said and heard of it, and where it stands."""

    id: int
    opener: int
    kind: str
    caller: str = "running"
    callee: str = "unknown"
    sent: tuple[list[Any], list[Any]] = field(default_factory=lambda: ([], []))
    heard: tuple[list[Any], list[Any]] = field(default_factory=lambda: ([], []))
    """Index 0: from opener to callee; index 1: from callee to opener."""
    cancels: int = 0

    @property
    def stream(self) -> bool:
        return self.kind in ("stream", "ahead")


class TwoMachines(RuleBasedStateMachine):
    @initialize(
        windows=st.tuples(st.sampled_from(WINDOWS), st.sampled_from(WINDOWS)),
        chunks=st.tuples(st.sampled_from(CHUNKS), st.sampled_from(CHUNKS)),
    )
    def connect(self, windows: tuple[int, int], chunks: tuple[int, int]) -> None:
        self.windows = windows
        self.chunks = chunks
        self.sides = [
            Machine(
                dialler=i == 0,
                peer_window=windows[1 - i],
                peer_chunk=chunks[1 - i],
                window=windows[i],
            )
            for i in (0, 1)
        ]
        self.wires: list[deque[bytes]] = [deque(), deque()]
        self.calls: dict[int, Call] = {}
        self.notices: tuple[list[Any], list[Any]] = ([], [])
        self.under_way: Counter[tuple[int, int]] = Counter()
        self.starved: set[tuple[int, int]] = set()
        self.seed = 0
        for side in (0, 1):
            for kind in ("call", "stream", "ahead"):
                self.open(side, kind, [side])
        self.settle()

    # What an application does -----------------------------------------------------------------

    def payload(self, sizes: list[int]) -> list[bytes]:
        self.seed += 1
        return content(sizes, self.seed)

    def pick(self, number: int, **states: Any) -> Call | None:
        fitting = [
            call
            for call in self.calls.values()
            if all(getattr(call, name) in allowed for name, allowed in states.items())
        ]
        return fitting[number % len(fitting)] if fitting else None

    def say(
        self, call: Call, towards: int, frame: Any, segments: list[bytes] | None = None
    ) -> None:
        side = call.opener if towards == 0 else 1 - call.opener
        assert self.sides[side].send(frame, segments or ())
        call.sent[towards].append((frame, segments or []))

    @rule(
        side=sides,
        kind=st.sampled_from(["call", "stream", "stream", "ahead", "ahead", "fetch"]),
        sizes=sizes,
    )
    def open(self, side: int, kind: str, sizes: list[int]) -> None:
        ident = self.sides[side].next_id
        call = self.calls[ident] = Call(ident, side, kind)
        if kind == "fetch":
            self.say(call, 0, f.Need(ident, [b"key"]))
            return
        frame = opening(ident, sizes, stream=call.stream, prefetch=3 * (kind == "ahead"))
        self.say(call, 0, frame, self.payload(sizes))

    @precondition(lambda self: self.pick(0, **OPEN))
    @rule(number=picks, payloads=several)
    def resume_or_cancel(self, number: int, payloads: list[list[int]]) -> None:
        call = self.pick(number, **OPEN)
        assert call
        if call.caller == "suspended":
            for sizes in payloads[: 1 if call.kind == "stream" else None]:
                self.say(
                    call, 0, f.Resume(call.id, sizes, step=1, operation=f.SEND), self.payload(sizes)
                )
            if call.kind == "stream":
                call.caller = "begun"
        if number % 5 == 0 or call.caller != "suspended":
            call.cancels += 1
            self.say(call, 0, f.Cancel(call.id, 0, b"%d" % call.cancels))

    @precondition(lambda self: self.pick(0, callee=STEPPING))
    @rule(number=picks, payloads=several, how=st.integers(0, 9))
    def answer(self, number: int, payloads: list[list[int]], how: int) -> None:
        call = self.pick(number, callee=STEPPING)
        assert call
        if call.kind == "fetch":
            self.say(call, 1, f.Supply(call.id, payloads[0]), self.payload(payloads[0]))
        elif call.callee == "running" and how == 9:
            self.say(call, 1, f.Reject(call.id, "no"))
        elif call.stream and how < 8:
            for sizes in payloads[: 1 if call.kind == "stream" else None]:
                self.say(call, 1, value(call.id, sizes), self.payload(sizes))
            call.callee = "suspended" if call.kind == "stream" else "begun"
            return
        else:
            end = returned if how % 2 else raised
            self.say(call, 1, end(call.id, payloads[0]), self.payload(payloads[0]))
        call.callee = "closed"

    @rule(numbers=st.lists(picks, max_size=2), side=sides)
    def give_back(self, numbers: list[int], side: int) -> None:
        idents: list[int] = []
        for number in numbers:
            call = self.pick(
                number, kind=["call", "stream", "ahead"], callee=["running"], opener=[1 - side]
            )
            if call:
                call.callee = "closed"
                call.sent[1].append((f.GiveBack([call.id], 0), []))
                idents.append(call.id)
        assert self.sides[side].send(f.GiveBack(idents, 0, True))

    @precondition(lambda self: self.pick(0, caller=["closed"]))
    @rule(number=picks)
    def speak_of_closed(self, number: int) -> None:
        call = self.pick(number, caller=["closed"])
        assert call
        assert not self.sides[call.opener].send(f.Cancel(call.id))
        assert not self.sides[1 - call.opener].send(returned(call.id))

    @rule(
        side=sides,
        frame=st.sampled_from(
            [
                f.Idle(3, 0),
                f.Recall(2),
                f.Drain(),
                f.Peers([]),
                f.Release([]),
                f.Heard(1, 2),
                f.Output(9, []),
            ]
        ),
    )
    def notice(self, side: int, frame: Any) -> None:
        assert self.sides[side].send(frame)
        self.notices[side].append(frame)

    # What the session and the network do ------------------------------------------------------

    @rule(side=sides, limit=st.one_of(st.integers(0, 3000), st.just(1 << 20)))
    def transmit(self, side: int, limit: int) -> None:
        machine = self.sides[side]
        waiting = len(machine._control)
        chunk, window = self.chunks[1 - side], self.windows[1 - side]
        bulk = 0
        for position, message in enumerate(machine.outgoing(limit)):
            frame, payload = f.decode_call(joined(message))
            # All that waited goes first, however much of the large payloads is left.
            if position < waiting:
                assert not isinstance(frame, f.Chunk)
            assert len(payload) <= chunk
            if isinstance(frame, f.Chunk):
                assert len(payload)
                assert bulk < limit
                bulk += len(payload)
                self.under_way[side, frame.call] += len(payload)
                assert self.under_way[side, frame.call] <= window
            self.wires[side].append(joined(message))

    @rule(count=st.integers(5, 20), limit=st.integers(1000, 8000))
    def exchange(self, count: int, limit: int) -> None:
        for side in (0, 1, 0):
            self.transmit(side, limit)
            self.deliver(side, count)

    @rule(side=sides, count=st.integers(1, 10), starving=st.booleans())
    def deliver(self, side: int, count: int, starving: bool = False) -> None:
        for _ in range(min(count, len(self.wires[side]))):
            message = self.wires[side].popleft()
            frame, _ = f.decode_call(message)
            if isinstance(frame, f.Credit):
                self.under_way[1 - side, frame.call] -= frame.amount
                assert self.under_way[1 - side, frame.call] >= 0
            with (
                mock.patch.object(
                    transfer, "allocate", mock.Mock(side_effect=MemoryError("none left"))
                )
                if starving
                else mock.patch.object(
                    transfer, "allocate", mock.Mock(side_effect=bytearray)
                ) as allocate
            ):
                events = receive(self.sides[1 - side], message)
            if starving and allocate.called:
                assert isinstance(frame, f.Chunk)
                self.starved.add((1 - side, frame.call))
            for event, segments in events:
                self.hear(1 - side, event, segments)

    def hear(self, side: int, frame: Any, segments: Any) -> None:
        if isinstance(
            frame,
            (f.Idle, f.Recall, f.Drain, f.Peers, f.Release, f.Heard, f.Output),
        ):
            assert self.notices[1 - side].pop(0) == frame
            return
        if isinstance(frame, f.GiveBack):
            for ident in frame.calls:
                self.hear_about(side, self.calls[ident], f.GiveBack([ident], 0), segments)
            return
        self.hear_about(side, self.calls[frame.call], frame, segments)

    def hear_about(self, side: int, call: Call, frame: Any, segments: Any) -> None:
        towards = int(side == call.opener)
        if towards == 1 and call.callee == "unknown":
            # The machine itself spoke: the payload was cancelled, or found no memory.
            if isinstance(frame, f.GiveBack):
                assert call.cancels
            else:
                assert isinstance(frame, f.Reject)
                assert frame.message == "none left"
                assert (1 - side, call.id) in self.starved
            assert len(joined(call.sent[0][0][1])) > self.chunks[1 - side]
            call.callee = call.caller = "closed"
            call.sent[1].append((frame, []))
        expected, payload = call.sent[towards][len(call.heard[towards])]
        assert frame == expected
        if isinstance(segments, Missing):
            assert (side, call.id) in self.starved
            assert len(segments) == len(payload)
        else:
            assert [bytes(segment) for segment in segments] == payload
        call.heard[towards].append(frame)
        match frame:
            case f.Open() | f.Need():
                assert call.callee == "unknown"
                call.callee = "running"
            case f.Resume():
                call.callee = "begun"
            case f.Value():
                call.caller = "suspended"
            case f.Cancel():
                assert call.callee not in ("unknown", "closed")
            case _:
                call.caller = "closed"

    # What must be true at the end -------------------------------------------------------------

    def settle(self) -> None:
        while any(self.wires) or any(machine.has_outgoing for machine in self.sides):
            for side in (0, 1):
                self.transmit(side, 2000)
                self.deliver(side, 1 << 20)

    def teardown(self) -> None:
        if not hasattr(self, "sides"):
            return
        self.settle()
        while any(call.caller != "closed" for call in self.calls.values()):
            for number, call in enumerate(list(self.calls.values())):
                if call.callee in ("running", "begun"):
                    say = f.Supply(call.id) if call.kind == "fetch" else returned(call.id)
                    self.say(call, 1, say)
                    call.callee = "closed"
                elif call.callee == "suspended":
                    assert call.caller == "suspended"
                    self.say(call, 0, f.Resume(call.id, step=1, operation=f.CLOSE))
                    call.caller = "begun"
            self.settle()
        assert self.notices == ([], [])
        for call in self.calls.values():
            assert call.callee == "closed"
            # Every word of the callee arrives; the opener's may find the call closed.
            assert len(call.heard[1]) == len(call.sent[1])
        for machine in self.sides:
            assert not machine._calls
            assert not machine._outbound
            assert not machine._bulk
            assert not machine._control


TestTwoMachines = TwoMachines.TestCase
TestTwoMachines.pytestmark = [pytest.mark.timeout(300)]  # a failure takes long to minimize
TestTwoMachines.settings = settings(
    max_examples=200, stateful_step_count=60, deadline=None, print_blob=True
)
