"""The connection machine: every frame in every state, and the races one by one."""

from __future__ import annotations

from typing import Any

import pytest

from unit.protocolkit import (
    CALLING,
    CHUNK,
    WINDOW,
    Pair,
    content,
    joined,
    machine,
    opening,
    raised,
    receive,
    returned,
    value,
)
from wool._protocol import frames as f
from wool._protocol import states, transfer
from wool._protocol.connection import Machine
from wool._protocol.states import FROM_OPENER, State
from wool._protocol.transfer import Missing
from wool.exceptions import ProtocolError

LARGE = [3 * WINDOW]
#: What closes no call, and may come when that has closed, is no part of its states.
ABOUT_CALLS = [k for k in CALLING if "call" in k.__struct_fields__ and k not in (f.Heard, f.Output)]


def send(connection: Machine, frame: Any, payload: bytes = b"") -> list[Any]:
    """Feeds one message to a machine."""
    return receive(connection, f.encode(frame) + payload)


def drain(connection: Machine) -> list[Any]:
    """Returns the frames that a machine wants to send."""
    return [f.decode_call(joined(message))[0] for message in connection.outgoing(1 << 30)]


def frame(kind: type[f.Frame], call: int) -> Any:
    return {
        f.Open: opening(call),
        f.Need: f.Need(call, []),
        f.Resume: f.Resume(call, step=1),
        f.Cancel: f.Cancel(call),
        f.Value: value(call),
        f.Return: returned(call),
        f.Raise: raised(call),
        f.GiveBack: f.GiveBack([call], 0),
        f.Reject: f.Reject(call, "no"),
        f.Supply: f.Supply(call),
        f.Chunk: f.Chunk(call),
        f.Credit: f.Credit(call, 1),
        f.Whole: f.Whole(call, 1),
    }[kind]


# The tables -----------------------------------------------------------------------------------

TABLES = {
    "call": states.CALL,
    "stream": states.STREAM,
    "ahead": states.AHEAD,
    "fetch": states.FETCH,
}
PATHS: dict[str, dict[State, list[type[f.Frame]]]] = {
    "call": {State.RUNNING: [], State.CLOSED: [f.Return]},
    "stream": {
        State.RUNNING: [],
        State.SUSPENDED: [f.Value],
        State.BEGUN: [f.Value, f.Resume],
        State.CLOSED: [f.Value, f.Resume, f.Raise],
    },
    "ahead": {State.RUNNING: [], State.BEGUN: [f.Value], State.CLOSED: [f.Reject]},
    "fetch": {State.RUNNING: [], State.CLOSED: [f.Supply]},
}
"""How to get a call of each table into each of its states."""


def first(table: str, call: int) -> Any:
    if table == "fetch":
        return f.Need(call, [])
    return opening(call, stream=table != "call", prefetch=4 * (table == "ahead"))


def arrange(table: str, path: list[type[f.Frame]], opened_here: bool) -> tuple[Machine, int]:
    """Returns a machine with a call in the state that a path leads to."""
    connection = machine(dialler=True)
    call = 1 if opened_here else 2
    spoken = [first(table, call), *(frame(kind, call) for kind in path)]
    for each in spoken:
        from_opener = isinstance(each, (f.Open, f.Need)) or type(each) in FROM_OPENER
        if from_opener is opened_here:
            connection.send(each)
        else:
            send(connection, each)
    drain(connection)
    return connection, call


COMBINATIONS = [
    pytest.param(table, state, kind, opened_here, id=f"{table}-{state.name}-{kind.__name__}-{side}")
    for table, paths in PATHS.items()
    for state in paths
    for kind in [*ABOUT_CALLS, f.GiveBack]
    for opened_here, side in ((True, "opener"), (False, "callee"))
    if kind not in (f.Chunk, f.Credit, f.Whole)
]


def test_every_state_of_the_tables_is_reached() -> None:
    for name, table in TABLES.items():
        reached = {to for transitions in table.values() for to in transitions.values()}
        assert set(table) | reached == set(PATHS[name])


@pytest.mark.parametrize(("table", "state", "kind", "opened_here"), COMBINATIONS)
def test_every_frame_in_every_state(
    table: str, state: State, kind: type[f.Frame], opened_here: bool
) -> None:
    connection, ident = arrange(table, PATHS[table][state], opened_here)
    call = connection._calls.get(ident)
    assert (call.state if call else State.CLOSED) is state
    after = TABLES[table].get(state, {}).get(kind)
    may_say = (kind in FROM_OPENER) is not opened_here and kind not in (f.Open, f.Need)
    if not may_say or (after is None and state is not State.CLOSED):
        with pytest.raises(ProtocolError):
            send(connection, frame(kind, ident))
        return
    events = send(connection, frame(kind, ident))
    call = connection._calls.get(ident)
    assert (call.state if call else State.CLOSED) is (after or State.CLOSED)
    if state is State.CLOSED:
        assert events in ([], [(f.GiveBack([], 0), ())])
    else:
        assert events == [(frame(kind, ident), ())] or [list(e[1]) for e in events] == [[]]


@pytest.mark.parametrize(("table", "state", "kind", "opened_here"), COMBINATIONS)
def test_nothing_is_sent_that_the_peer_would_refuse(
    table: str, state: State, kind: type[f.Frame], opened_here: bool
) -> None:
    if kind in (f.Open, f.Need):
        return
    connection, ident = arrange(table, PATHS[table][state], opened_here)
    if state is State.CLOSED:
        assert connection.send(frame(kind, ident)) is (kind is f.GiveBack)
        return
    after = TABLES[table].get(state, {}).get(kind)
    if after is None or (kind in FROM_OPENER) is not opened_here:
        with pytest.raises(RuntimeError, match="cannot be sent"):
            connection.send(frame(kind, ident))
        assert not connection.has_outgoing
    else:
        assert connection.send(frame(kind, ident))


@pytest.mark.parametrize("kind", [*ABOUT_CALLS, f.GiveBack])
@pytest.mark.parametrize("ident", [1, 2, 3, 4, 2**62])
def test_calls_that_never_were(kind: type[f.Frame], ident: int) -> None:
    for connection in (machine(dialler=True), machine(dialler=False)):
        mine = ident % 2 == connection._parity
        if kind in (f.Open, f.Need) and not mine:
            send(connection, frame(kind, ident))
        else:
            with pytest.raises(ProtocolError):
                send(connection, frame(kind, ident))


@pytest.mark.parametrize("kind", [f.Open, f.Need])
def test_calls_are_opened_in_order(kind: type[f.Frame]) -> None:
    connection = machine(dialler=True)
    send(connection, frame(kind, 6))
    for ident in (6, 4, 2):
        with pytest.raises(ProtocolError, match="out of order"):
            send(connection, frame(kind, ident))
    send(connection, frame(kind, 8))


@pytest.mark.parametrize("kind", [k for k in CALLING if "sizes" not in k.__struct_fields__])
def test_frames_without_payload(kind: type[f.Frame]) -> None:
    if kind is f.Chunk:
        return
    connection, ident = arrange("stream", [], opened_here=kind in (f.GiveBack, f.Reject))
    made = {
        f.Recall: f.Recall(1),
        f.Heard: f.Heard(1, 2),
        f.Output: f.Output(1, []),
        f.Idle: f.Idle(0, 0),
        f.Drain: f.Drain(),
        f.Peers: f.Peers([]),
        f.Release: f.Release([]),
        f.Inquire: f.Inquire(1),
        f.Report: f.Report(1, []),
        f.Measure: f.Measure(),
        f.Usage: f.Usage(0, False, 0),
        f.Share: f.Share(b"here", b"\0name", bytes(16)),
        f.Reuse: f.Reuse(1, True),
    }.get(kind) or frame(kind, ident)
    with pytest.raises(ProtocolError, match="payload"):
        send(connection, made, b"x")


# Payloads -------------------------------------------------------------------------------------


def test_a_small_call_overtakes_large_ones() -> None:
    pair = Pair()
    for ident in (1, 3):
        pair.dialler.send(opening(ident, LARGE), content(LARGE))
    pair.deliver(pair.dialler, 2 * CHUNK)
    pair.dialler.send(opening(5, [10]), content([10]))
    ((frame, _),) = pair.deliver(pair.dialler, 1)
    assert frame.call == 5
    pair.acceptor.send(returned(5))
    assert [e.call for e, _ in pair.deliver(pair.acceptor)] == [5]
    assert pair.dialler._outbound.keys() == {1, 3}


def test_large_payloads_take_turns() -> None:
    pair = Pair()
    for ident in (1, 3, 5):
        pair.dialler.send(opening(ident, LARGE), content(LARGE))
    turns = [frame.call for frame in drain(pair.dialler) if isinstance(frame, f.Chunk)]
    assert turns == [1, 3, 5] * (WINDOW // CHUNK)


def test_credit_is_given_for_a_quarter_of_the_window_and_for_the_rest() -> None:
    connection = machine(dialler=True)
    connection.send(opening(1, stream=True))
    drain(connection)
    quarter = WINDOW // 4
    send(connection, value(1, [quarter + 1]))
    send(connection, f.Chunk(1), bytes(quarter - 1))
    assert drain(connection) == []
    send(connection, f.Chunk(1), bytes(1))
    assert drain(connection) == [f.Credit(1, quarter)]
    send(connection, f.Chunk(1), bytes(1))
    assert drain(connection) == [f.Credit(1, 1)]


def test_nobody_needs_credit_for_a_call_that_has_ended() -> None:
    connection = machine(dialler=True)
    connection.send(opening(1))
    drain(connection)
    send(connection, returned(1, [2 * WINDOW]))
    send(connection, f.Chunk(1), bytes(WINDOW))
    assert drain(connection) == [f.Credit(1, WINDOW)]
    send(connection, f.Chunk(1), bytes(WINDOW))
    assert drain(connection) == []


@pytest.mark.parametrize("limit", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
def test_a_batch_ends_with_the_chunk_that_reaches_the_limit(limit: int) -> None:
    connection = machine(dialler=True)
    connection.send(opening(1, LARGE), content(LARGE))
    connection.outgoing(0)
    chunks = connection.outgoing(limit)
    assert len(chunks) == -(-limit // CHUNK)


def test_what_is_said_behind_a_large_payload_stays_behind_it() -> None:
    pair = Pair()
    pair.dialler.send(opening(1, stream=True, prefetch=9))
    pair.pump()
    sizes = [LARGE, [1], [WINDOW], [2, 0]]
    for number, each in enumerate(sizes):
        assert pair.acceptor.send(value(1, each), content(each, number))
    assert pair.acceptor.send(returned(1))
    assert not pair.acceptor.send(value(1))
    ours, _ = pair.pump()
    assert [frame for frame, _ in ours] == [*(value(1, each) for each in sizes), returned(1)]
    for number, (_, segments) in enumerate(ours[:-1]):
        assert [bytes(segment) for segment in segments] == content(sizes[number], number)
    pair.assert_idle()


@pytest.mark.parametrize(
    ("wrong", "payload", "reason"),
    [
        (opening(2, [5]), b"1234", "announced 5 bytes"),
        (opening(2, [5]), b"123456", "announced 5 bytes"),
        (opening(2), b"1", "announced 0 bytes"),
        (opening(2, [1], codes=[f.Code(b"k"), f.Code(b"l")]), b"1", "more code"),
        (
            opening(2, [1], codes=[f.Code(b"k")], context=[f.Variable(("m:v",), b"", 0, 1)]),
            b"1",
            "more code",
        ),
        (opening(2, [2**62] * 9), b"1", "announced"),
    ],
)
def test_payloads_unlike_their_announcement(wrong: f.Open, payload: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        send(machine(dialler=True), wrong, payload)


def test_more_chunks_than_announced() -> None:
    connection = machine(dialler=True)
    send(connection, opening(2, [10]))
    send(connection, f.Chunk(2), bytes(9))
    with pytest.raises(ProtocolError, match="more payload"):
        send(connection, f.Chunk(2), bytes(2))


def test_chunks_that_belong_to_nothing() -> None:
    connection = machine(dialler=True)
    send(connection, opening(2, [10]), bytes(10))
    with pytest.raises(ProtocolError, match="no payload"):
        send(connection, f.Chunk(2), b"x")


@pytest.mark.parametrize("kind", [f.Value, f.Return, f.Raise, f.GiveBack, f.Reject])
def test_a_callee_that_does_not_finish_its_payload(kind: type[f.Frame]) -> None:
    connection, ident = arrange("stream", [], opened_here=True)
    send(connection, value(ident, LARGE))
    with pytest.raises(ProtocolError):
        send(connection, frame(kind, ident))


# Cancelling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("delivered", [0, 1, WINDOW, 2 * WINDOW])
def test_a_cancel_before_all_of_the_call_has_arrived(delivered: int) -> None:
    """The application on the other side never hears of such a call."""
    pair = Pair()
    pair.dialler.send(opening(1, LARGE), content(LARGE))
    while LARGE[0] - pair.dialler._outbound[1].left < delivered:
        assert pair.deliver(pair.dialler, 1) == []
        assert pair.deliver(pair.acceptor) == []
    pair.dialler.send(f.Cancel(1))
    late = pair.dialler.outgoing(WINDOW)  # chunks that leave before the answer comes
    kinds = [type(f.decode_call(joined(message))[0]) for message in late]
    assert kinds.index(f.Cancel) < kinds.index(f.Chunk)
    for message in late:
        assert receive(pair.acceptor, joined(message)) == []
    assert pair.pump() == ([(f.GiveBack([1], 0), ())], [])
    pair.assert_idle()


# Live objects ---------------------------------------------------------------------------------


def test_what_a_cancelled_call_refers_to_is_let_go() -> None:
    """Nobody above hears of it, so nobody else would say so."""
    connection = machine(dialler=False)
    send(connection, opening(1, LARGE, references=[b"one", b"two"]))
    send(connection, f.Cancel(1))
    released = f.Release([f.Lent(b"one", 1), f.Lent(b"two", 1)])
    assert drain(connection) == [released, f.GiveBack([1], 0)]
    send(connection, f.Chunk(1), bytes(CHUNK))  # it was under way
    assert drain(connection) == []


def test_what_a_step_of_a_stream_that_has_ended_refers_to_is_let_go() -> None:
    connection = machine(dialler=False)
    send(connection, opening(1, stream=True))
    connection.send(returned(1))
    drain(connection)
    assert send(connection, f.Resume(1, references=(b"key",), step=1, operation=f.SEND)) == []
    assert drain(connection) == [f.Release([f.Lent(b"key", 1)])]


@pytest.mark.usefixtures("no_memory")
def test_what_a_call_refers_to_that_memory_lacks_for_is_let_go() -> None:
    connection = machine(dialler=False)
    send(connection, opening(1, LARGE, references=[b"key"]))
    assert send(connection, f.Chunk(1), bytes(CHUNK)) == []
    reject = f.Reject(1, f"no memory for {LARGE[0]} bytes")
    assert drain(connection) == [f.Release([f.Lent(b"key", 1)]), reject]


# Giving back ----------------------------------------------------------------------------------


def test_give_back() -> None:
    pair = Pair()
    for _ in range(3):
        pair.dialler.send(opening(pair.dialler.next_id))
    pair.pump()
    pair.acceptor.send(returned(3))
    assert pair.acceptor.send(f.GiveBack([1, 3, 5, 5], 4, True))
    ours, _ = pair.pump()
    assert ours == [(returned(3), []), (f.GiveBack([1, 5], 4, True), ())]
    pair.assert_idle()


# Memory ---------------------------------------------------------------------------------------


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    def refuse(size: int) -> bytearray:
        raise MemoryError(f"no memory for {size} bytes")

    monkeypatch.setattr(transfer, "allocate", refuse)
    return monkeypatch


def test_no_memory_for_a_step(no_memory: pytest.MonkeyPatch) -> None:
    """A stream goes on: both sides agree where it stands."""
    pair = Pair()
    pair.dialler.send(opening(1, stream=True))
    pair.pump()
    pair.acceptor.send(value(1, LARGE), content(LARGE))
    ((_, segments),), _ = pair.pump()
    with pytest.raises(MemoryError, match="no memory for"):
        segments[0]
    pair.dialler.send(f.Resume(1, LARGE, step=1, operation=f.SEND), content(LARGE))
    _, ((frame, segments),) = pair.pump()
    assert isinstance(frame, f.Resume)
    assert isinstance(segments, Missing)
    no_memory.undo()
    pair.acceptor.send(value(1, LARGE), content(LARGE))
    ((_, segments),), _ = pair.pump()
    assert bytes(segments[0]) == content(LARGE)[0]
    pair.dialler.send(f.Resume(1, step=2, operation=f.CLOSE))
    pair.pump()
    pair.acceptor.send(returned(1))
    pair.pump()
    pair.assert_idle()


def test_a_frame_that_is_too_large_changes_nothing() -> None:
    pair = Pair()
    pair.dialler.send(opening(1))
    pair.pump()
    with pytest.raises(ValueError, match="Cancel"):
        pair.dialler.send(f.Cancel(1, 0, bytes(f.MAX_HEADER)))
    with pytest.raises(ValueError, match="Open"):
        pair.dialler.send(opening(3, routine="x" * f.MAX_HEADER))
    with pytest.raises(ValueError, match="Raise"):
        pair.acceptor.send(f.Raise(1, summary=f.Summary("x" * f.MAX_HEADER)))
    assert pair.dialler.next_id == 3
    assert pair.acceptor.send(returned(1))
    pair.pump()
    pair.assert_idle()
