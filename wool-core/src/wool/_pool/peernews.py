"""News for the workers of a pool, of one another."""

from __future__ import annotations

import asyncio
import threading

from wool._client.client import Client
from wool._client.peer_pool import peers
from wool._protocol import frames as f

GATHERING = 0.02
"""Seconds in which news of workers is gathered before others are told."""


class PeerNews:
    """Tells the workers that a client is connected to of one another, when there is news.

    Args:
        options: what holds for all calls of the pool; they are told along with it.
    """

    def __init__(self, options: f.CallOptions) -> None:
        self._latest = f.Peers([], options)
        self._told: f.Peers | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._lock = threading.Lock()  # sessions are opened on any thread

    def forget(self) -> None:
        """Nobody knows anything: the pool has been opened anew."""
        self._told = self._timer = None

    def latest(self, client: Client | None) -> f.Peers:
        """Returns the workers that a client is connected to, or may be at any time."""
        links = [] if client is None else list(client.links.values())
        workers = peers(link.info for link in links)
        with self._lock:
            before = self._latest
            if workers != before.workers:
                self._latest = f.Peers(workers, before.options, edition=before.edition + 1)
            return self._latest

    def tell(self, client: Client) -> None:
        """Tells them now, on the loop of the client."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        news = self.latest(client)
        if news != self._told and not client.closed:
            self._told = news
            for session in client.sessions():
                session.send(news)

    def tell_soon(self, client: Client) -> None:
        """Tells them in a moment: where hundreds are connected, more will be by then."""
        if self._timer is None:
            self._timer = client.loop.call_later(GATHERING, self.tell, client)
