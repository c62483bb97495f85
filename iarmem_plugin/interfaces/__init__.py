"""What plugins provide: abstract classes without behaviour, and the plain data they exchange."""

from __future__ import annotations

from iarmem_plugin.interfaces.adapter import Adapter, ForwardInputs, Variant
from iarmem_plugin.interfaces.checkpoint import Checkpoint
from iarmem_plugin.interfaces.condition import Condition
from iarmem_plugin.interfaces.edits import EditData, ModelEdit
from iarmem_plugin.interfaces.evaluation import (
    AnyQuality,
    Completion,
    LossQuality,
    Prediction,
    Quality,
    QualityValue,
    Similarity,
    TunedSampling,
)
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.interfaces.mlp import MLP, Reads, Site, Writes
from iarmem_plugin.interfaces.neurons import (
    ActivationIntervention,
    AnyIntervention,
    ImageScorer,
    Intervention,
    Metric,
    NeuronFacts,
    NeuronWeights,
    Selector,
)
from iarmem_plugin.interfaces.plugin import Plugin
from iarmem_plugin.interfaces.sampling import Sampling
from iarmem_plugin.interfaces.triggers import AnyTrigger, Attempt, ModelTrigger, Trigger

__all__ = [
    "MLP",
    "ActivationIntervention",
    "Adapter",
    "AnyIntervention",
    "AnyQuality",
    "AnyTrigger",
    "Attempt",
    "Checkpoint",
    "Completion",
    "Condition",
    "EditData",
    "ForwardInputs",
    "ImageScorer",
    "Intervention",
    "LossQuality",
    "Metric",
    "ModelEdit",
    "ModelLayout",
    "ModelTrigger",
    "NeuronFacts",
    "NeuronWeights",
    "Plugin",
    "Prediction",
    "Quality",
    "QualityValue",
    "Reads",
    "Sampling",
    "Scale",
    "Selector",
    "Similarity",
    "Site",
    "Trigger",
    "TunedSampling",
    "Variant",
    "Writes",
]
