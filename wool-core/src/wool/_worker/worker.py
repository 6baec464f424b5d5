"""`Worker`: serves calls from this process, for as long as its program likes."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from wool import abc
from wool._addresses import is_socket, socket_scheme
from wool._peer.background import settle
from wool._plugins import lookup
from wool._plugins.lookup import scheme_transport
from wool._security import sockets
from wool._security.credentials import Authenticator, Credentials, Keyring, SameUser
from wool._settings.settings import Settings, blaming
from wool._settings.sources import ARGUMENT
from wool._worker.arguments import checked_credentials, instance, labels
from wool._worker.backends import (
    Announcing,
    ChosenDiscovery,
    choose_discovery,
    choose_transport,
)
from wool._worker.executor import Executor
from wool._worker.lifespan import Enter, checked_lifespan
from wool._worker.loops import LoopThread
from wool._worker.output import Capture
from wool._worker.placement import (
    check_advertised,
    check_place,
    credentials_of,
    network_credentials,
)
from wool._worker.server import Setup
from wool._worker.service import Service
from wool._worker.transports import Transports, is_local
from wool._workerinfo import WorkerInfo
from wool.exceptions import ConfigurationError, WoolError
from wool.plugins import TransportPlugin


class Worker:
    """Serves calls: routines run on the event loop that enters `async with`, I/O on a thread.

    It does not matter to callers how busy the loop is: they are answered, and can cancel, while
    user code blocks it.

    Args:
        address: where to listen, `scheme://host:port` or `scheme+unix:///path`. By default on all
            interfaces, at any free port or, for the discovery `dns`, at the port that it names, if
            the discovery reaches other machines; else at a place of the transport's choice, on this
            machine alone.
        advertise: the address that others are told to dial, where that is another one, as behind a
            proxy or a port that is forwarded.
        discovery: where to announce it: the name of a discovery back-end, or an instance of
            `wool.abc.Discovery`.
        transport: name of the transport; by default that of `address`, else `unix`, or the network
            transport that is installed if the discovery reaches other machines.
        serializer: name of the serializer.
        tags: labels it offers to routines that ask for them.
        concurrency: how many calls it runs at once; None is no limit.
        credentials: what callers have to have on a network; by default the token in `WOOL_TOKEN` or
            `WOOL_TOKEN_FILE`. A Unix socket serves the processes of its own user and needs none.
        lifespan: returns an async context manager that is entered before the worker takes calls,
            and left after the last one, within `cancel_grace` seconds. Its value is
            `wool.current_worker().state` in routines.
        insecure: serves whoever asks, without credentials, on the loopback interface only.
        drain_timeout: seconds that running calls get to finish when it is left, 30 by default; they
            are cancelled at once if it is left with an exception. Those that are cancelled get
            `cancel_grace` seconds to clean up, a setting.

    Arguments not given are taken from the environment and `pyproject.toml`, see `docs/settings.md`.

    Raises:
        ConfigurationError, PluginError: an argument has no usable value; a network address without
            credentials among others.
        ConnectFailed: on entering, if it cannot listen there; and what the lifespan raises.
    """

    _alone = False  # whether it has the process to itself

    def __init__(
        self,
        *,
        address: str | None = None,
        advertise: str | None = None,
        discovery: str | abc.Discovery | None = None,
        transport: str | None = None,
        serializer: str | None = None,
        tags: Iterable[str] = (),
        concurrency: int | None = None,
        credentials: Credentials | None = None,
        lifespan: Enter | None = None,
        insecure: bool = False,
        drain_timeout: float | None = None,
    ) -> None:
        self._info: WorkerInfo | None = None
        self._settings = Settings.read(lookup.names)
        self._core, self._origins = self._settings.core(
            transport=transport,
            serializer=serializer,
            concurrency=concurrency,
            drain_timeout=drain_timeout,
        )
        self._address = instance("address", address, str, "a string")
        self._advertise = instance("advertise", advertise, str, "a string")
        self._discovery = self._find_discovery(discovery)
        self._tags = labels(tags)
        self._lifespan = checked_lifespan(lifespan)
        self._transports = Transports({}, self._settings)
        self._transport = self._choose_transport(transport)
        if advertise is not None:
            check_advertised(advertise, self._transport)
        with blaming(self._origins["transport"] if address is None else ARGUMENT):
            lookup.transport(self._transport)
        plugin, _ = self._transports.get(self._transport)
        if address is None and "network" in plugin.capabilities and self._discovery is not None:
            self._address = self._discovery.place(plugin.name, self._discovery.backend.port)
        check_place(self._address, plugin)
        self._check_reach(plugin)
        self._keyring = self._make_keyring(plugin, checked_credentials(credentials), insecure)
        self._announcing: Announcing | None = None
        self._io: LoopThread | None = None

    def _find_discovery(self, given: Any) -> ChosenDiscovery | None:
        if isinstance(given, ChosenDiscovery):  # by the command line, which knows its back-end
            return given
        if isinstance(given, abc.Discovery):
            return ChosenDiscovery(given)
        instance("discovery", given, str, "the name of one, or a wool.abc.Discovery")
        if given is not None:
            return choose_discovery(self._settings, given)
        origin = self._origins["discovery"]
        return choose_discovery(self._settings, self._core.discovery, origin=origin)

    def _choose_transport(self, asked: str | None) -> str:
        if self._address is None:
            return choose_transport(self._core.transport, self._discovery)
        name = scheme_transport(self._address)
        if asked is not None and asked != name:
            raise ConfigurationError(
                f"the address {self._address} is for the transport {name!r}, not {asked!r}"
            )
        return name

    def _check_reach(self, plugin: TransportPlugin) -> None:
        """Raises ConfigurationError if those who find the worker could not call it."""
        address = self._advertise or self._address
        reaches_out = self._discovery is not None and self._discovery.reaches_out
        if reaches_out and is_local(address, plugin):
            place = address or f"the transport {plugin.name!r}"
            raise ConfigurationError(
                f"{self._discovery} tells other machines of the worker, which cannot reach "
                f"{place}: give an address such as grpc://0.0.0.0:7000, or another discovery"
            )

    def _make_keyring(
        self, plugin: TransportPlugin, credentials: Authenticator | None, insecure: bool
    ) -> Keyring:
        address = self._address
        if credentials is None and not insecure:
            credentials = credentials_of(self._settings)
        at_socket = is_socket(address) if address else plugin.capabilities >= {"local", "unix"}
        if at_socket and "uid" not in plugin.capabilities:
            raise ConfigurationError(
                f"the transport {plugin.name!r} does not tell who is at the other end of a Unix "
                f"socket, so no worker can be at {address or 'one'}: use the transport 'unix', or "
                "a network address with credentials"
            )
        if at_socket or "network" not in plugin.capabilities:
            return Keyring(SameUser(), credentials)  # its routines may call workers elsewhere
        return Keyring(SameUser(), network_credentials(address, credentials, insecure=insecure))

    def __repr__(self) -> str:
        state = "not serving" if self._info is None else self._info.address
        return f"<{type(self).__name__}: {state}>"

    @property
    def info(self) -> WorkerInfo:
        """Facts that others need to know of this worker, its address above all, and its load now.

        Raises:
            WoolError: it is not serving.
        """
        if self._info is None:
            raise self._not_serving()
        return replace(self._info, load=self._service.load)

    def _not_serving(self) -> WoolError:
        return WoolError("the worker is not serving: use it inside its `async with`")

    async def __aenter__(self) -> Self:
        if self._io is not None:
            raise WoolError("the worker is serving already")
        with blaming(self._origins["serializer"]):
            found = lookup.serializer(self._core.serializer)
        options, _ = self._settings.options(found.plugin.name, found.plugin.options)
        setup = Setup(
            id=secrets.token_hex(8),
            tags=self._tags,
            transport=self._transport,
            transports=self._transports,
            keyring=self._keyring,
            serializer=found.make(options),
            serializer_name=found.plugin.name,
            listen=self._address or self._private_place(),
            observers=lookup.companions(self._core.observers),
        )
        self._loop = asyncio.get_running_loop()
        executor = self._executor = Executor(self._loop, self._core.concurrency)
        executor.capture = Capture() if self._alone else None
        self._service = Service(setup, executor)
        self._io = LoopThread(self._core.loop)
        self._drained = self._loop.create_future()
        try:
            if self._lifespan is not None:
                await executor.lifespan.enter(self._lifespan)
            info = await self._io.run(self._service.open())
            info = self._info = replace(info, address=self._advertise or info.address)
            if self._discovery is not None:
                announcing = Announcing(self._discovery, info)
                await self._io.run(announcing.open())
                self._announcing = announcing
        except BaseException:
            await self._close(drain=None)
            raise
        return self

    def _private_place(self) -> str | None:
        """Returns a new place for a Unix socket, where that is how the transport listens.

        Its directory is one that is removed by whoever listens next, should this process be killed.
        """
        plugin, _ = self._transports.get(self._transport)
        if sockets.SUPPORTED and plugin.capabilities >= {"local", "unix"}:
            return f"{socket_scheme(plugin.name)}://{sockets.socket_in(sockets.new_directory())}"
        return None

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close(drain=self._core.drain_timeout if kind is None else None)

    async def _close(self, drain: float | None) -> None:
        """Serves no more, however far it has come with that.

        Args:
            drain: seconds that running calls get to finish; None cancels them at once.
        """
        io, announcing, grace = self._io, self._announcing, self._core.cancel_grace
        assert io is not None
        self._announcing = None
        try:
            try:
                if announcing is not None:
                    await io.run(announcing.aclose())
            except asyncio.CancelledError:
                drain = None
                raise
            finally:
                if self._info is None:
                    await self._executor.lifespan.leave(grace)
                else:
                    await io.run(self._service.aclose(drain=drain, grace=grace))
        finally:
            self._info = self._io = None
            await io.aclose()
            if self._address is None:
                self._service.discard()

    async def serve(self) -> None:
        """Serves until `drain` is called, or this is cancelled.

        Raises:
            WoolError: it is not serving.
        """
        if self._info is None:
            raise self._not_serving()
        await asyncio.shield(self._drained)

    def drain(self) -> None:
        """Takes no more calls; running ones go on, and callers send theirs elsewhere.

        Ends `serve`. May be called from any thread, and from a signal handler, also while user code
        blocks the loop.
        """
        if self._io is not None:
            self._io.call(self._leave)
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(settle, self._drained)

    def _leave(self) -> None:
        if self._announcing is not None:
            self._announcing.withdraw()
        self._service.drain()
