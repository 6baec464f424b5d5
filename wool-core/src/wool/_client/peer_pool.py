"""The pool that a worker belongs to, as the calls that its routines make see it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from wool._client.pool import Pool, rules_of
from wool._code.modules import Modules
from wool._peer.session import Session
from wool._protocol import frames as f
from wool._workerinfo import WorkerInfo


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
        edition: of what is known of the pool's workers; 0: nothing.
        output: where output of its calls goes: `caller`, `worker` or `off`.
    """

    idle_timeout = 60.0
    keeps = False
    edition = 0
    output = "worker"

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

    def on_connected(self, session: Session) -> None:
        """Passes on what the pool has told: it may not be connected to that worker itself."""
        super().on_connected(session)
        workers = peers(self.members.values())
        session.send(f.Peers(workers, self.options, relayed=True, edition=self.edition))

    def learn(self, peers: f.Peers) -> bool:
        """Takes the options of the pool; returns whether the peers told are news.

        Those that the pool tells itself are, even if the edition is the same: workers pass on only
        those that they can reach. It has several connections, and may have said something newer on
        one.
        """
        if peers.edition < self.edition + peers.relayed:
            return False
        self.edition = peers.edition
        if peers.options != self.options:
            self.options = peers.options
            if self.modules.imported_alike:
                self.modules.obey(rules_of(peers.options))
            self.choose_context()
        return True


def peers(infos: Iterable[WorkerInfo]) -> list[f.Peer]:
    """Returns what a worker is told of others."""
    return [f.Peer(w.id, w.address, w.host, w.pid, sorted(w.tags)) for w in infos]
