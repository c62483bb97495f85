"""Tests that come with the contracts: subclass one, give its fixture, and run pytest."""

from __future__ import annotations

from .adapter import AdapterTests
from .intervention import InterventionTests
from .metric import MetricTests
from .selector import SelectorTests

__all__ = ["AdapterTests", "InterventionTests", "MetricTests", "SelectorTests"]
