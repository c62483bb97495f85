"""What plugins provide: abstract classes without behaviour, and the plain data they exchange."""

from __future__ import annotations

from iarmem_plugin.interfaces.adapter import Adapter, ForwardInputs, Sampling, Variant
from iarmem_plugin.interfaces.evaluation import Completion, Quality, QualityValue, Similarity
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.interfaces.neurons import Intervention, Metric, NeuronWeights, Selector
from iarmem_plugin.interfaces.plugin import Plugin

__all__ = [
    "Adapter",
    "Completion",
    "ForwardInputs",
    "Intervention",
    "Metric",
    "ModelLayout",
    "NeuronWeights",
    "Plugin",
    "Quality",
    "QualityValue",
    "Sampling",
    "Scale",
    "Selector",
    "Similarity",
    "Variant",
]
