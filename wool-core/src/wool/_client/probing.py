"""A look at a worker: whether it can be used, and what it says of itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from msgspec import Struct

from wool._peer.handshaking import DEADLINE, dial
from wool._peer.routes import Routes
from wool._peer.session import Session
from wool._protocol import frames as f
from wool._protocol.status import ProcessStatus
from wool._security.credentials import Keyring
from wool._workerinfo import WorkerInfo
from wool.abc import Buffer
from wool.exceptions import ConnectionLost, WoolError

MARGIN = 1.5
"""Seconds by which a worker may be late that waits a second for its callers."""


class Seen(Struct, frozen=True):
    """The result of a look.

    Attributes:
        info: all that is known of the worker now.
        age: seconds since it began to serve; None: it has not said.
        problem: why it cannot be used; None if it can.
    """

    info: WorkerInfo
    age: int | None = None
    problem: str | None = None


class Probe:
    """Looks at workers, as a caller who makes no calls.

    Args:
        routes, keyring: how they are reached, and what is shown to them.
        hello: makes what the caller says of itself, given the words for its credentials.
        timeout: seconds for each of them.
    """

    def __init__(
        self,
        routes: Routes,
        keyring: Keyring,
        hello: Callable[[str], f.Hello],
        timeout: float = DEADLINE,
    ) -> None:
        self._routes = routes
        self._keyring = keyring
        self._hello = hello
        self._timeout = timeout

    async def look(self, info: WorkerInfo) -> Seen:
        """Connects to a worker, and lets it go. Does not raise for what is wrong with it."""
        try:
            session, welcome = await self._dial(info.address)
        except WoolError as error:
            return Seen(info, problem=without_address(error, info.address))
        except Exception as error:  # a transport may raise anything
            return Seen(info, problem=f"cannot be dialled: {error!r}")
        await session.connection.aclose()
        return Seen(met(info, welcome, session.peer), welcome.age)

    async def ask(
        self, address: str, *, callers: bool = False, cancel: str = ""
    ) -> Sequence[ProcessStatus]:
        """Asks a worker what it is doing.

        Args:
            callers: whether it is to ask its callers as well.
            cancel: id of a call that it is to cancel first, if it runs it.

        Raises:
            WoolError: it cannot be reached, or does not answer in time.
        """
        session, _ = await self._dial(address)
        answer: asyncio.Future[Sequence[ProcessStatus]] = asyncio.Future()

        def on_frame(frame: f.Frame, segments: Sequence[Buffer]) -> None:
            if isinstance(frame, f.Report) and not answer.done():
                answer.set_result(frame.processes)

        def on_lost(error: Exception) -> None:
            if not answer.done():
                answer.set_exception(error)

        session.send(f.Inquire(1, callers, cancel))
        pumping = asyncio.create_task(session.run(on_frame, on_lost))
        try:
            async with asyncio.timeout(self._timeout + MARGIN):
                return await answer
        except TimeoutError:
            raise ConnectionLost(f"{address} has not said what it does in time") from None
        finally:
            pumping.cancel()
            await asyncio.gather(pumping, return_exceptions=True)

    async def _dial(self, address: str) -> tuple[Session, f.Welcome]:
        route = self._routes.to(address)
        credentials = self._keyring.pick(address, local=route.local)
        return await dial(route, address, self._hello(credentials.kind), credentials, self._timeout)


def without_address(error: Exception, address: str) -> str:
    """Returns what an error says of a worker, to follow its address, with which it may begin."""
    return re.sub(rf"^(worker )?{re.escape(address)}/?:? ", "", str(error))


def met(info: WorkerInfo, welcome: f.Welcome, peer: f.Hello) -> WorkerInfo:
    """Returns what is known of a worker once it has introduced itself."""
    return replace(
        info,
        id=welcome.id,
        host=welcome.host,
        pid=welcome.pid,
        tags=frozenset(welcome.tags),
        python=peer.python,
        version=peer.wool,
        serializers=tuple(peer.serializers),
        load=welcome.load,
    )
