"""The pool that a worker belongs to, as the calls that its routines make see it."""

from __future__ import annotations

from typing import Protocol

from wool._client.link import Link
from wool._client.pool import Pool, rules_of
from wool._protocol import frames as f
from wool._serialization.travelling import Home, Modules
from wool._session.session import Session


class Gate(Protocol):
    """Keeps calls from beginning on the loop of a worker; see `Executor`."""

    def hold(self) -> bool: ...
    def release(self) -> None: ...


class PeerPool(Pool):
    """The pool of a worker, as the calls that its routines make see it.

    Idle connections are closed soon: workers that only keep one another connected to a pool that is
    gone would never notice.

    Args:
        modules: those that its calls need.
        gate: of the worker.

    Attributes:
        told: whether the pool itself has said who its workers are.
    """

    idle_timeout = 60.0
    keeps = False
    told = False

    def __init__(
        self,
        ident: str,
        options: f.CallOptions,
        modules: Modules | None = None,
        gate: Gate | None = None,
    ) -> None:
        super().__init__(ident, options, modules)
        self._gate = gate

    def hold(self) -> bool:
        """Keeps the worker from beginning calls, which could block the loop that connects."""
        return self._gate is not None and self._gate.hold()

    def release(self) -> None:
        """Ends one `hold`."""
        assert self._gate is not None
        self._gate.release()

    def on_connected(self, link: Link, session: Session) -> None:
        """Passes on what the pool has told: it may not be connected to that worker itself."""
        super().on_connected(link, session)
        session.send(self.peers(self.members.values(), relayed=True))

    def learn(self, peers: f.Peers) -> bool:
        """Takes the options of the pool; returns whether the peers told are news.

        Workers only pass on what they were told. What the pool says itself counts more.
        """
        if peers.relayed and self.told:
            return False
        self.told = not peers.relayed
        if peers.options != self.options:
            self.options = peers.options
            if isinstance(self.modules, Home):
                self.modules.obey(rules_of(peers.options))
            self.choose_context()
        return True
