"""The conformance kit of transports."""

from __future__ import annotations

import pytest

from wool.testing._transport.ends import Ends
from wool.testing._transport.flow import Flow
from wool.testing._transport.listening import Listening
from wool.testing._transport.messages import Messages
from wool.testing._transport.peers import Peers
from wool.testing._transport.pumping import Pumping
from wool.testing._transport.security import Security
from wool.testing._transport.use import Use

__all__ = ["TransportSuite"]


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.filterwarnings("error")
class TransportSuite(Messages, Flow, Pumping, Ends, Listening, Peers, Security, Use):
    """Tests what `wool.abc` promises of transports; subclass it in a test module.

    Override `transport`, and `address` if the transport cannot choose where to listen. What an
    instance returns must fit what another instance in another process returns: tests start some.

    Attributes:
        in_process: whether connections cannot leave this process; then no other one is started.
        patience: seconds that anything may take before it counts as hanging.
    """
