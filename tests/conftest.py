"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine takes its time; what has to be fast is measured by benchmarks.
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")
