"""The conformance kit of discoveries."""

from __future__ import annotations

import pytest

from wool.testing._discovery.addresses import AddressChecks
from wool.testing._discovery.announcing import Announcing
from wool.testing._discovery.faults import Faults
from wool.testing._discovery.use import Use
from wool.testing._discovery.watching import Watching

__all__ = ["AddressDiscoverySuite", "DiscoverySuite"]


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.filterwarnings("error")
class DiscoverySuite(Watching, Announcing, Faults, Use):
    """Tests what `wool.abc` promises of discoveries; subclass it in a test module.

    Override `discovery`, and the others where they do not fit. What an instance returns must fit
    what another instance in another process returns: tests start some.

    Attributes:
        in_process: whether workers are found in this process alone; then no other one is started.
        gone_within: seconds in which workers disappear whose process was killed.
        patience: seconds that anything else may take before it counts as hanging.
        runs: how often a state machine uses the discovery at random.
    """


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.filterwarnings("error")
class AddressDiscoverySuite(AddressChecks):
    """Tests discoveries that find addresses which somebody else keeps, such as `static` and `dns`.

    Override `discovery`; and `change`, if what it finds can change.

    Attributes:
        addresses: what it finds at first: at least two.
        patience: seconds that anything may take before it counts as hanging.
    """
