"""Settings that hold for all tests."""

from __future__ import annotations

import gc
import signal

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import none

# Where a script has started the tests in the background, or by `nohup`, signals are ignored that
# tests send; what is started inherits that.
for number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
    if signal.getsignal(number) is signal.SIG_IGN:
        handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, handler)

# A busy machine takes its time; what has to be fast is measured by benchmarks.
settings.register_profile(
    "untimed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")


def pytest_collection_finish() -> None:
    """Lets the garbage collector, which many tests call, pass over the thousands of tests."""
    gc.collect()
    _use_hypothesis()
    gc.freeze()


@settings(max_examples=1, database=None)
@given(none())
def _use_hypothesis(nothing: None) -> None:
    """Has Hypothesis find its random numbers while the collector still tells who refers to them."""
