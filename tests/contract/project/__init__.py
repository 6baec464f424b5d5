"""A user's project of several modules, for tests of code that travels as whole modules."""

from __future__ import annotations

from contract.project.kinds import Point

__all__ = ["Point"]
