"""Frames: what a message of the wire protocol says, and how it is laid out in bytes.

A message is `<u32 length of header> header payload`, the header one of the structs below in
MessagePack. A `Loaded` frame carries as many payload segments as it has `sizes`. If together they
exceed the chunk size nothing of them is in the frame's own message: `Chunk` messages follow.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal, TypeVar

import msgspec

from wool._protocol.status import ProcessStatus
from wool.exceptions import ProtocolError, RemoteError

Buffer = bytes | bytearray | memoryview
T = TypeVar("T")
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
CallId = Annotated[int, msgspec.Meta(ge=1, le=2**62)]

MAX_HEADER = 2 << 20
"""Largest header in bytes. A message is no larger than this, the prefix and a chunk."""

PREFIX = 4


class Frame(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of all frames. They have no part in any cycle."""


class Code(msgspec.Struct, array_like=True, frozen=True):
    """Names one of the leading payload segments: code, sent once per connection.

    `key` identifies it; `provides` are the keys of everything that loading it makes known.
    """

    key: bytes
    provides: tuple[bytes, ...] = ()


class Variable(msgspec.Struct, array_like=True, frozen=True):
    """The change of a context variable. Values are the last payload segments, in this order."""

    names: tuple[str, ...]
    """Where it is bound, `module:qualified.name`; any of them will do."""
    origin: bytes
    """The process that defines it; empty if it belongs to a module that is installed."""
    change: Annotated[int, msgspec.Meta(ge=0, le=4)]
    """One of `SET … TRANSLATED`: it is set, has again the value that the receiver sent last, is
    unset, or does not travel: `remark` is what to tell the user. The last one is no variable, but
    what a plug-in makes of a library's context."""
    segments: Count = 0
    """Of how many payload segments its value consists."""
    remark: str = ""


SET, RETURNED, UNSET, REMARK, TRANSLATED = range(5)

# Handshake ------------------------------------------------------------------------------------


class Hello(Frame, tag=1, kw_only=True, frozen=True):
    """First message in both directions."""

    protocols: list[int]
    wool: str
    python: str
    serializers: list[str]
    nonce: bytes
    process: bytes
    """Identifies the process for as long as it lives: the origin of the code it defines."""
    window: Count
    chunk: Count
    pool: str = ""
    """Dialler: the pool the connection belongs to."""
    serializer: str = ""
    """Dialler: the serializer of all payloads on this connection."""
    security: str = ""
    """How this side authenticates itself and the peer."""


class Proof(Frame, tag=2, frozen=True):
    """Shows knowledge of the secret, bound to both `Hello`s and to the sender's role."""

    mac: bytes


class Welcome(Frame, tag=3, kw_only=True, frozen=True):
    """Acceptor, after its own `Proof`: who the dialler is talking to."""

    id: str
    host: str
    pid: int
    tags: list[str] = []
    load: Count = 0
    age: Count = 0
    """Seconds since it began to serve."""
    pool: str = ""
    """The pool that has started it; it can import what that pool can."""
    caller: Count = 0
    """The number of the dialler among its callers: calls are identified by it, see `calls`."""


class Refuse(Frame, tag=4, frozen=True):
    """Ends a handshake. `code` is `version`, `authentication` or empty."""

    code: str
    message: str


# Calls: opener to callee ----------------------------------------------------------------------


class Loaded(Frame, frozen=True):
    """A frame with a payload. All of them begin alike."""

    call: CallId
    sizes: list[Count] = []
    """Of the payload's segments."""
    codes: tuple[Code, ...] = ()
    """Names the leading segments."""
    references: tuple[bytes, ...] = ()
    """Keys of the live objects that the payload refers to."""
    context: tuple[Variable, ...] = ()
    """Names the trailing segments."""


class Open(Loaded, tag=10, kw_only=True, frozen=True):
    """Begins a call; for a stream (`stream` true) also its first step."""

    routine: str
    """`module:qualified.name`, with `=` before it if the module travels; `#` and the key of its
    code in hexadecimal; or `@`, the key of a live object in hexadecimal, a dot and what to do with
    it."""
    stream: bool = False
    parent: str = ""
    """Id of the call it was made from, or empty."""
    prefetch: Count = 0
    """How many values of a stream may be sent before they are asked for."""


class Resume(Loaded, tag=11, kw_only=True, frozen=True):
    """Asks a suspended stream for its next step. `operation` is one of `NEXT … CLOSE`."""

    step: Count
    operation: Annotated[int, msgspec.Meta(ge=0, le=3)] = 0
    more: Count = 1
    """For how many values it asks: those who are sent some before they ask need not ask often."""


NEXT, SEND, THROW, CLOSE = range(4)


class Cancel(Frame, tag=12, frozen=True):
    """Cancels a call, or step `step` of a stream. `message` is the pickled argument, if any."""

    call: CallId
    step: Count = 0
    message: bytes | None = None


class Recall(Frame, tag=13, frozen=True):
    """Asks for up to `count` calls that have not begun to be given back."""

    count: Count


class Heard(Frame, tag=15, frozen=True):
    """The output of a call has been shown, so far as its weight is `amount` more."""

    call: CallId
    amount: Count


class Need(Frame, tag=14, frozen=True):
    """Asks for code that was lost or never sent. Opens a call that `Supply` closes."""

    call: CallId
    keys: list[bytes]


# Calls: callee to opener ----------------------------------------------------------------------


class Answer(Loaded, kw_only=True, frozen=True):
    """The outcome of a step of a call. `delivered` and `uncancelled` count cancels during it.

    `load` is how many calls the worker has; `idle_as_of` is the last call of the receiver's that it
    had seen if it could begin another one at once, else 0.
    """

    delivered: Count = 0
    uncancelled: Count = 0
    load: Count = 0
    idle_as_of: Count = 0


class Value(Answer, tag=20, kw_only=True, frozen=True):
    """A stream yielded.

    `step` is that of the last `Resume` that the stream had taken. `apart` says that each segment is
    a value: a stream that runs ahead sends several at once.
    """

    step: Count = 0
    apart: bool = False


class Return(Answer, tag=21, frozen=True):
    """A call returned a value, or a stream ended (then without payload)."""


class Summary(msgspec.Struct, array_like=True, frozen=True):
    """Describes an exception, for when it cannot be rebuilt.

    Attributes:
        type_name: module and qualified name of its class.
        message: its `str()`.
        traceback: its traceback as text, with those of its causes, in Wool's own formatting.
    """

    type_name: str = ""
    message: str = ""
    traceback: str = ""

    def error(self) -> RemoteError:
        """Makes the exception that stands for the one described."""
        return RemoteError(self.type_name, self.message, self.traceback)


class Raise(Answer, tag=22, kw_only=True, frozen=True):
    """A call or stream ended with an exception.

    `echo` is true when it is the very exception that was thrown in; then the payload is what has
    been done to it meanwhile, if anything. `step` is as in `Value`.
    """

    summary: Summary = Summary()
    echo: bool = False
    step: Count = 0


class GiveBack(Frame, tag=23, frozen=True):
    """These calls have not begun and never will: recalled, cancelled in time, or drained.

    `recalled` tells the answer to `Recall`, in which `waiting` is how many calls of the opener
    still wait to begin.
    """

    calls: list[CallId]
    waiting: Count
    recalled: bool = False


class Reject(Frame, tag=24, frozen=True):
    """The call is refused before it began, for the reason in `message`."""

    call: CallId
    message: str


class Supply(Loaded, tag=25, frozen=True):
    """Answers `Need` with those pieces of code that the callee has."""


class Idle(Frame, tag=26, frozen=True):
    """The worker could begin a call at once; fields as in `Answer`."""

    load: Count
    idle_as_of: Count


OUTPUT_BOUND = 256 << 10
"""Weight of the output of a call that may be under way to its caller, or wait to be sent."""

STDOUT, STDERR, RECORD = range(3)


class Piece(msgspec.Struct, array_like=True, frozen=True):
    """Something that a call has printed or logged. `stream` is one of `STDOUT … RECORD`.

    `data` are whole lines in UTF-8, or the attributes of one record of a log in MessagePack.
    """

    routine: str
    worker: str
    stream: Annotated[int, msgspec.Meta(ge=0, le=2)]
    data: bytes

    @property
    def weight(self) -> int:
        """About how many bytes it takes."""
        return len(self.data) + len(self.routine) + len(self.worker) + 32


class Output(Frame, tag=27, frozen=True):
    """Output of a call, and of those that it has made. The answer that follows it comes later."""

    call: CallId
    pieces: list[Piece]

    @property
    def weight(self) -> int:
        """The weight of all pieces."""
        return sum(piece.weight for piece in self.pieces)


# Both directions ------------------------------------------------------------------------------


class Chunk(Frame, tag=30, frozen=True):
    """The next bytes of the payload that is under way for `call`."""

    call: CallId


class Credit(Frame, tag=31, frozen=True):
    """Allows the sender of the payload of `call` to send `amount` more bytes."""

    call: CallId
    amount: Count


class Whole(Frame, tag=39, frozen=True):
    """The payload that is under way for `call`, all of it: it is in this segment of memory."""

    call: CallId
    segment: Count


class Share(Frame, tag=40, frozen=True):
    """Says where the sender takes segments of memory. Answered alike, once in each direction."""

    machine: bytes
    """The running kernel and the network namespace, within which the address is unique."""
    address: bytes
    """The abstract name of a Unix socket."""
    token: bytes
    """A secret, sent along with each segment."""


class Reuse(Frame, tag=41, frozen=True):
    """The sender no longer looks at a segment of the receiver's."""

    segment: Count
    clean: bool
    """Whether nobody else may look at it, such as a process that has been forked."""


class Drain(Frame, tag=34, frozen=True):
    """The sender takes no more new calls; those it has are finished."""


class Peer(msgspec.Struct, array_like=True, frozen=True):
    """A worker, as told to another one."""

    id: str
    address: str
    host: str
    pid: int
    tags: list[str] = []


class CallOptions(msgspec.Struct, array_like=True, frozen=True):
    """Options of all calls of a pool, those that its routines make on workers among them."""

    quorum_timeout: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    """Seconds a call waits for a worker."""
    cancel_grace: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    """Seconds a call that was cancelled waits for its remote clean-up."""
    travels: bool = False
    """Whether the caller's own modules travel to workers that its pool has not started."""
    ship: list[str] = []
    """Modules that do in any case."""
    by_reference: list[str] = []
    """Modules that never do."""
    context: bool = True
    """Whether context variables travel."""
    exclude: list[str] = []
    """Context variables that do not, as `module.name`."""
    offered: list[list[str]] | None = None
    """The tags of each kind of worker there will ever be; None if others may be found."""
    output: Literal["auto", "caller", "worker", "off"] = "worker"
    """Where what calls print and log goes. `auto`: from workers that the pool has started it stays
    there, from others it goes to the caller."""
    log_level: Count = 0
    """Level of the caller's root logger: a worker's has the lowest of its callers' and its own."""


class Peers(Frame, tag=35, frozen=True):
    """All workers of the dialler's pool, and its options; replaces what was told before."""

    workers: list[Peer]
    options: CallOptions = CallOptions()
    relayed: bool = False
    """Whether the dialler is a worker of that pool itself, and passes on what it was told."""
    edition: Count = 0
    """Grows with the pool's news: what is passed on counts only if it is newer."""


class Lent(msgspec.Struct, array_like=True, frozen=True):
    """Says in how many of the frames received so far a live object was referred to."""

    key: bytes
    times: Count


class Release(Frame, tag=36, frozen=True):
    """The sender no longer uses these live objects of the receiver."""

    references: list[Lent]


class Inquire(Frame, tag=37, frozen=True):
    """Asks what a process is doing; a worker is asked for its callers as well, if `callers`.

    A worker that runs the call `cancel` cancels it first.
    """

    token: Count
    callers: bool = False
    cancel: str = ""


class Report(Frame, tag=38, frozen=True):
    """Answers `Inquire`; those who have been asked and have not answered are left out."""

    token: Count
    processes: list[ProcessStatus]


class Measure(Frame, tag=42, frozen=True):
    """Asks a worker how much it has to do.

    One that a pool has started drains if that is nothing, and `retire`.
    """

    retire: bool = False


class Usage(Frame, tag=43, frozen=True):
    """Answers `Measure`.

    Attributes:
        pending: how many calls have not begun.
        busy: whether there are calls or streams, or objects that others use.
        ended: how many calls have ended since it began to serve.
        wanted: the tags of each call of routines, made with the asking pool, that no worker has.
    """

    pending: Count
    busy: bool
    ended: Count
    wanted: list[list[str]] = []


Handshaking = Hello | Proof | Welcome | Refuse
OfCalls = Open | Resume | Cancel | Need | Value | Return | Raise | GiveBack | Reject | Supply
OfPayloads = Chunk | Credit | Whole
OfMemory = Share | Reuse
OfPeers = Recall | Idle | Drain | Peers | Inquire | Report | Measure | Usage
Notice = Heard | Output | Release | OfMemory | OfPeers
"""Frames that leave the state of every call as it is."""
Calling = OfCalls | OfPayloads | Notice

_prefix = struct.Struct("<I")
_encode = msgspec.msgpack.Encoder().encode
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def encode(frame: Frame) -> bytes:
    """Returns prefix and header of a message.

    Raises:
        ValueError: the header is too large; the peer would end the connection.
    """
    header = _encode(frame)
    if len(header) > MAX_HEADER:
        raise ValueError(f"a {type(frame).__name__} of {len(header)} bytes without its payload")
    return len(header).to_bytes(PREFIX, "little") + header


def _decode(decode: Callable[[memoryview], T], message: bytes | memoryview) -> tuple[T, memoryview]:
    """Decodes a message into its frame and payload."""
    view = memoryview(message)
    size = _prefix.unpack_from(view)[0] if len(view) >= PREFIX else len(view)
    end = PREFIX + size
    if size > MAX_HEADER or end > len(view):
        raise ProtocolError(
            f"the peer sent a message of {len(view)} bytes whose header claims {size}"
        )
    try:
        return decode(view[PREFIX:end]), view[end:]
    except _MALFORMED as error:
        raise ProtocolError(f"the peer sent a malformed frame: {error}") from None


_decode_handshake = partial(_decode, msgspec.msgpack.Decoder[Handshaking](Handshaking).decode)

decode_call = partial(_decode, msgspec.msgpack.Decoder[Calling](Calling).decode)
"""Decodes a message after the handshake into its frame and payload bytes."""


def decode_handshake(message: bytes | memoryview) -> Handshaking:
    """Decodes a message of the handshake; it has no payload."""
    frame, payload = _decode_handshake(message)
    if len(payload):
        raise ProtocolError("the peer sent a payload before the handshake was over")
    return frame


def total(segments: Sequence[Buffer]) -> int:
    """Returns the length of the segments in bytes."""
    return sum(map(len, segments))
