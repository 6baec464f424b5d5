"""The transport: dials and listens."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from wool import abc
from wool_grpc import Options, _probe
from wool_grpc._addresses import Address, known, parse, resolve
from wool_grpc._arguments import channel_arguments, suited
from wool_grpc._calls import TAKEN, Dialled
from wool_grpc._connection import GrpcConnection
from wool_grpc._errors import refusal
from wool_grpc._library import aio, check_process, check_room
from wool_grpc._listener import GrpcListener
from wool_grpc._loops import LoopProxies
from wool_grpc._tls import channel_credentials, expected_name


class GrpcTransport(abc.Transport):
    """Connects over gRPC."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._proxies = LoopProxies()

    async def connect(
        self, address: str, *, credentials: abc.Tls | None, timeout: float
    ) -> abc.Connection:
        check_process()
        place = parse(address)
        try:
            async with asyncio.timeout(timeout):
                return await self._connect(place, credentials)
        except TimeoutError:
            raise abc.ConnectFailed(
                f"{address} did not answer within {timeout:g} s", reason="timeout"
            ) from None

    async def _connect(self, place: Address, tls: abc.Tls | None) -> abc.Connection:
        places = await resolve(place)
        found, certificate, secure, name, asked = places[0], b"", None, None, ""
        if tls is not None:
            asked = expected_name(tls, place)
            found, certificate = await _probe.find(places, tls, asked)
            secure, name = channel_credentials(tls, certificate, place)
        elif len(places) > 1:
            found, _ = await _probe.find(places, None, "")
        try:
            call = await self._dial(found, secure, name)
        except _NoCall as failure:
            if failure.explained is not None:
                raise failure.explained from None
            raise await _probe.explain(found, tls, asked, certificate) from None
        facts = known(found)
        if certificate:
            facts["certificate"] = certificate
        return GrpcConnection(call, facts)

    async def _dial(self, place: Address, secure: Any, name: str | None) -> Dialled:
        """Opens a channel and the stream on it.

        Raises:
            ConnectFailed: there are too many open files.
            _NoCall: it did not come to that.
        """
        try:
            check_room()
        except OSError as error:
            what = os.strerror(error.errno or 0)
            raise abc.ConnectFailed(f"{place.text} cannot be dialled: {what}") from error
        arguments = channel_arguments(suited(self._options, place), name)
        with self._proxies.get().posing():
            if secure is None:
                channel = aio.insecure_channel(place.target, options=arguments)
            else:
                channel = aio.secure_channel(place.target, secure, options=arguments)
            dialled = Dialled(channel)
        try:
            if TAKEN[0] not in await dialled.call.initial_metadata():  # it is being refused
                raise _NoCall(refusal(place.text, await dialled.call.code()))
        except BaseException:
            dialled.abort()
            raise
        return dialled

    async def listen(self, address: str | None, *, credentials: abc.Tls | None) -> abc.Listener:
        check_process()
        place = parse(address or "grpc://127.0.0.1:0")
        spot = (await resolve(place))[0]
        options, proxy = suited(self._options, place), self._proxies.get()
        listener = GrpcListener(proxy, options, spot, place.host, credentials)
        await listener.start()
        return listener


class _NoCall(Exception):
    """No call got through.

    Attributes:
        explained: why, if the answer tells.
    """

    def __init__(self, explained: abc.ConnectFailed | None) -> None:
        self.explained = explained
