"""Tests that come with the contracts: subclass one, give its fixture, and run pytest.

`TinyAdapter` is a model to try plugins on.
"""

from __future__ import annotations

import pytest

_OF = (
    "adapter",
    "edit",
    "intervention",
    "laws",
    "metric",
    "quality",
    "scorer",
    "selector",
    "similarity",
    "trigger",
)
pytest.register_assert_rewrite(*(f"{__name__}.{one}" for one in _OF))  # so that failures say why

# ruff: noqa: E402  # what pytest rewrites is imported after it was told so
from .adapter import AdapterTests
from .edit import ModelEditTests
from .intervention import ActivationInterventionTests, InterventionTests
from .metric import MetricTests
from .quality import LossQualityTests, QualityTests
from .scorer import ImageScorerTests
from .selector import SelectorTests
from .similarity import SimilarityTests
from .tiny import TinyAdapter
from .trigger import ModelTriggerTests, TriggerTests

__all__ = [
    "ActivationInterventionTests",
    "AdapterTests",
    "ImageScorerTests",
    "InterventionTests",
    "LossQualityTests",
    "MetricTests",
    "ModelEditTests",
    "ModelTriggerTests",
    "QualityTests",
    "SelectorTests",
    "SimilarityTests",
    "TinyAdapter",
    "TriggerTests",
]
