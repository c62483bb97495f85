"""What plugins provide: abstract classes without behaviour, and the plain data they exchange."""

from __future__ import annotations

from iarmem_plugin.interfaces.adapter import (
    Adapter,
    Completion,
    ForwardInputs,
    Intervention,
    Metric,
    Quality,
    QualityValue,
    Sampling,
    Selector,
    Similarity,
    Variant,
)

__all__ = [
    "Adapter",
    "Completion",
    "ForwardInputs",
    "Intervention",
    "Metric",
    "Quality",
    "QualityValue",
    "Sampling",
    "Selector",
    "Similarity",
    "Variant",
]
