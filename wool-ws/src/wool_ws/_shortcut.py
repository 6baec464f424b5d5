"""A shortcut: small messages leave from the thread that has them, past the loop's.

An answer is made on the thread of user code, and its caller waits for it: handing it over to the
loop that does the I/O would cost more than sending it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence

from websockets.frames import Frame, Opcode

from wool.abc import Segments
from wool_ws._framing import FRAME, payloads


class Shortcut:
    """Writes frames to the socket of a connection without TLS, from any thread.

    Args:
        descriptor: of the socket, to be closed with this: the loop may close its one, and the
            number be given to another connection, while another thread is writing.

    Attributes:
        lock: to be held by whoever writes in either way.
        rest: what could not be written yet; goes before anything else.
    """

    def __init__(self, descriptor: int, transport: asyncio.Transport, *, masks: bool) -> None:
        self._descriptor = descriptor
        self._transport = transport
        self._masks = masks
        self.lock = threading.Lock()
        self.rest = b""

    @property
    def descriptor(self) -> int:
        """Its own one of the socket; below 0 once it is closed."""
        return self._descriptor

    @property
    def is_free(self) -> bool:
        """Whether nothing is waiting to be sent."""
        return not (self.rest or self._transport.get_write_buffer_size())

    def send(self, messages: Sequence[Segments]) -> bool:
        """Sends a batch; False if there is a rest.

        Nothing is said of a connection that is gone.
        """
        sizes = [sum(map(len, segments)) for segments in messages]
        data, kind = b"", Opcode.BINARY
        frames = payloads(messages, sizes, FRAME)
        for number, payload in enumerate(frames, 1):
            frame = Frame(kind, payload, fin=number == len(frames))
            data += frame.serialize(mask=self._masks)
            kind = Opcode.CONT
        with self.lock:
            if self._descriptor < 0:
                return True
            written = 0
            if self.is_free:  # else the loop has had something to say meanwhile, such as a pong
                try:
                    written = os.write(self._descriptor, data)
                except BlockingIOError:
                    pass
                except OSError:
                    return True
            self.rest += data[written:]
            return not self.rest

    def close(self) -> None:
        """Sends nothing any more. Idempotent."""
        with self.lock:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()  # the loop was closed, and told nobody


def shortcut(transport: asyncio.Transport, *, masks: bool) -> Shortcut | None:
    """Returns a shortcut, if there is one: encrypted connections have none."""
    if transport.get_extra_info("sslcontext") is not None or os.name != "posix":
        return None
    try:
        descriptor = os.dup(transport.get_extra_info("socket").fileno())
    except OSError:  # the process may open no more files
        return None
    return Shortcut(descriptor, transport, masks=masks)
