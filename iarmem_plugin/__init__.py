"""Find where an image autoregressive model memorized its training images, and reduce it.

The public names; each is imported on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str

    from iarmem_plugin.activations.capture import capture
    from iarmem_plugin.activations.distributed import Ranks, join_processes
    from iarmem_plugin.activations.leaving_out import LeavingOut
    from iarmem_plugin.activations.settings import CaptureOptions, CaptureSettings
    from iarmem_plugin.data.augmentation import Augmentation, CustomViews, TenCrops, Views
    from iarmem_plugin.data.images import Images
    from iarmem_plugin.errors import IarmemError, InputError, PluginError
    from iarmem_plugin.evaluation.candidates import Candidates
    from iarmem_plugin.evaluation.depth.measure import Depth, measure_depth
    from iarmem_plugin.evaluation.depth.patching import BlockOutputs, block_outputs, patched_losses
    from iarmem_plugin.evaluation.dinov2 import DinoV2
    from iarmem_plugin.evaluation.evidence.curves import Curve
    from iarmem_plugin.evaluation.evidence.equal import equal_fraction, equal_quality
    from iarmem_plugin.evaluation.evidence.expectations import Expectation
    from iarmem_plugin.evaluation.evidence.families import holm
    from iarmem_plugin.evaluation.evidence.power import smallest_difference
    from iarmem_plugin.evaluation.extraction import calibrate, extract, make_targets
    from iarmem_plugin.evaluation.generation import with_generations
    from iarmem_plugin.evaluation.likelihood import HeldOutLoss
    from iarmem_plugin.evaluation.losses import LossProtocol, loss_protocol
    from iarmem_plugin.evaluation.membership.comparing import Membership, compare_membership
    from iarmem_plugin.evaluation.membership.inference import DatasetInference, dataset_inference
    from iarmem_plugin.evaluation.membership.signals import membership_signals
    from iarmem_plugin.evaluation.quality import TorchFidelity
    from iarmem_plugin.evaluation.ranking.ranking import Ranking
    from iarmem_plugin.evaluation.ranking.run import rank
    from iarmem_plugin.evaluation.recognition import Recognition
    from iarmem_plugin.evaluation.similarity import SSCD, PixelCorrelation
    from iarmem_plugin.interfaces import (
        MLP,
        ActivationIntervention,
        Adapter,
        Attempt,
        Checkpoint,
        Completion,
        Condition,
        EditData,
        ForwardInputs,
        ImageScorer,
        Intervention,
        LossQuality,
        Metric,
        ModelEdit,
        ModelLayout,
        ModelTrigger,
        NeuronFacts,
        NeuronWeights,
        Plugin,
        Prediction,
        Quality,
        QualityValue,
        Reads,
        Sampling,
        Scale,
        Selector,
        Similarity,
        Site,
        Trigger,
        TunedSampling,
        Variant,
        Writes,
    )
    from iarmem_plugin.jobs.arms import Arm
    from iarmem_plugin.jobs.attack import ExtractionOptions
    from iarmem_plugin.jobs.auditing.job import audit
    from iarmem_plugin.jobs.compare.estimate import Estimate, estimate
    from iarmem_plugin.jobs.compare.job import compare
    from iarmem_plugin.jobs.contrast import CrossFit, contrast, cross_fit
    from iarmem_plugin.jobs.edits.noise import LogitNoise
    from iarmem_plugin.jobs.edits.training import FineTune, GradientAscent
    from iarmem_plugin.jobs.export.job import export
    from iarmem_plugin.jobs.localize import localize
    from iarmem_plugin.jobs.measuring import tune_sampling
    from iarmem_plugin.jobs.mitigate import mitigate
    from iarmem_plugin.jobs.plan.plan import Plan
    from iarmem_plugin.jobs.plan.planned import PlannedArm
    from iarmem_plugin.jobs.plan.reading import read_plan
    from iarmem_plugin.jobs.quality import QualityProtocol, quality_protocol
    from iarmem_plugin.jobs.recalibration import Recalibration
    from iarmem_plugin.jobs.scores import load_scores, save_scores
    from iarmem_plugin.jobs.triggers.completing import BestOfSamples, PrefixLadder
    from iarmem_plugin.jobs.triggers.embedding import LearnedEmbedding
    from iarmem_plugin.jobs.triggers.relearning import Relearn, Rounded
    from iarmem_plugin.models.intervening import intervene
    from iarmem_plugin.models.loading import load, wrap
    from iarmem_plugin.models.token_by_token import TokenByToken
    from iarmem_plugin.models.tracing import ImageARModel
    from iarmem_plugin.neurons.interventions import (
        Clamp,
        MeanAblate,
        ScaleBiases,
        ScaleOutgoing,
        ScaleWeights,
        ScaleWeightsAndBiases,
        Zero,
        ZeroWeights,
    )
    from iarmem_plugin.neurons.listed import Listed
    from iarmem_plugin.neurons.selectors import Highest, Lowest, Random, RandomMatched, select
    from iarmem_plugin.plugins.hookspecs import hookimpl
    from iarmem_plugin.report.auditing.audit import Audit
    from iarmem_plugin.report.auditing.findings import (
        AuditedPicture,
        Peak,
        VerdictCount,
        VerdictThreshold,
    )
    from iarmem_plugin.report.membership.showing import membership_files, membership_table
    from iarmem_plugin.report.report import Report
    from iarmem_plugin.report.sides.reports import SideBySide, side_by_side
    from iarmem_plugin.report.sides.scores import ScoreComparison, compare_scores
    from iarmem_plugin.store import ActivationStore, StoreOptions, score_on_cluster

__all__ = [
    "MLP",
    "SSCD",
    "ActivationIntervention",
    "ActivationStore",
    "Adapter",
    "Arm",
    "Attempt",
    "Audit",
    "AuditedPicture",
    "Augmentation",
    "BestOfSamples",
    "BlockOutputs",
    "Candidates",
    "CaptureOptions",
    "CaptureSettings",
    "Checkpoint",
    "Clamp",
    "Completion",
    "Condition",
    "CrossFit",
    "Curve",
    "CustomViews",
    "DatasetInference",
    "Depth",
    "DinoV2",
    "EditData",
    "Estimate",
    "Expectation",
    "ExtractionOptions",
    "FineTune",
    "ForwardInputs",
    "GradientAscent",
    "HeldOutLoss",
    "Highest",
    "IarmemError",
    "ImageARModel",
    "ImageScorer",
    "Images",
    "InputError",
    "Intervention",
    "LearnedEmbedding",
    "LeavingOut",
    "Listed",
    "LogitNoise",
    "LossProtocol",
    "LossQuality",
    "Lowest",
    "MeanAblate",
    "Membership",
    "Metric",
    "ModelEdit",
    "ModelLayout",
    "ModelTrigger",
    "NeuronFacts",
    "NeuronWeights",
    "Peak",
    "PixelCorrelation",
    "Plan",
    "PlannedArm",
    "Plugin",
    "PluginError",
    "Prediction",
    "PrefixLadder",
    "Quality",
    "QualityProtocol",
    "QualityValue",
    "Random",
    "RandomMatched",
    "Ranking",
    "Ranks",
    "Reads",
    "Recalibration",
    "Recognition",
    "Relearn",
    "Report",
    "Rounded",
    "Sampling",
    "Scale",
    "ScaleBiases",
    "ScaleOutgoing",
    "ScaleWeights",
    "ScaleWeightsAndBiases",
    "ScoreComparison",
    "Selector",
    "SideBySide",
    "Similarity",
    "Site",
    "StoreOptions",
    "TenCrops",
    "TokenByToken",
    "TorchFidelity",
    "Trigger",
    "TunedSampling",
    "Variant",
    "VerdictCount",
    "VerdictThreshold",
    "Views",
    "Writes",
    "Zero",
    "ZeroWeights",
    "__version__",
    "audit",
    "block_outputs",
    "calibrate",
    "capture",
    "compare",
    "compare_membership",
    "compare_scores",
    "contrast",
    "cross_fit",
    "dataset_inference",
    "equal_fraction",
    "equal_quality",
    "estimate",
    "export",
    "extract",
    "holm",
    "hookimpl",
    "intervene",
    "join_processes",
    "load",
    "load_scores",
    "localize",
    "loss_protocol",
    "make_targets",
    "measure_depth",
    "membership_files",
    "membership_signals",
    "membership_table",
    "mitigate",
    "patched_losses",
    "quality_protocol",
    "rank",
    "read_plan",
    "save_scores",
    "score_on_cluster",
    "select",
    "side_by_side",
    "smallest_difference",
    "tune_sampling",
    "with_generations",
    "wrap",
]

_SOURCES = {
    "iarmem_plugin.data.augmentation": ("Augmentation", "CustomViews", "TenCrops", "Views"),
    "iarmem_plugin.activations.capture": ("capture",),
    "iarmem_plugin.errors": ("IarmemError", "InputError", "PluginError"),
    "iarmem_plugin.evaluation.candidates": ("Candidates",),
    "iarmem_plugin.evaluation.depth.measure": ("Depth", "measure_depth"),
    "iarmem_plugin.evaluation.depth.patching": ("BlockOutputs", "block_outputs", "patched_losses"),
    "iarmem_plugin.evaluation.dinov2": ("DinoV2",),
    "iarmem_plugin.evaluation.evidence.curves": ("Curve",),
    "iarmem_plugin.evaluation.evidence.equal": ("equal_fraction", "equal_quality"),
    "iarmem_plugin.evaluation.evidence.expectations": ("Expectation",),
    "iarmem_plugin.evaluation.evidence.families": ("holm",),
    "iarmem_plugin.evaluation.evidence.power": ("smallest_difference",),
    "iarmem_plugin.evaluation.extraction": ("calibrate", "extract", "make_targets"),
    "iarmem_plugin.evaluation.generation": ("with_generations",),
    "iarmem_plugin.evaluation.likelihood": ("HeldOutLoss",),
    "iarmem_plugin.evaluation.losses": ("LossProtocol", "loss_protocol"),
    "iarmem_plugin.evaluation.membership.comparing": ("Membership", "compare_membership"),
    "iarmem_plugin.evaluation.membership.inference": ("DatasetInference", "dataset_inference"),
    "iarmem_plugin.evaluation.membership.signals": ("membership_signals",),
    "iarmem_plugin.evaluation.quality": ("TorchFidelity",),
    "iarmem_plugin.evaluation.ranking.ranking": ("Ranking",),
    "iarmem_plugin.evaluation.ranking.run": ("rank",),
    "iarmem_plugin.evaluation.recognition": ("Recognition",),
    "iarmem_plugin.evaluation.similarity": ("SSCD", "PixelCorrelation"),
    "iarmem_plugin.plugins.hookspecs": ("hookimpl",),
    "iarmem_plugin.data.images": ("Images",),
    "iarmem_plugin.interfaces": (
        "MLP",
        "ActivationIntervention",
        "Adapter",
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
    ),
    "iarmem_plugin.neurons.interventions": (
        *("Clamp", "MeanAblate", "ScaleBiases", "ScaleOutgoing", "ScaleWeights"),
        *("ScaleWeightsAndBiases", "Zero", "ZeroWeights"),
    ),
    "iarmem_plugin.jobs.localize": ("localize",),
    "iarmem_plugin.jobs.export.job": ("export",),
    "iarmem_plugin.jobs.plan.plan": ("Plan",),
    "iarmem_plugin.jobs.plan.planned": ("PlannedArm",),
    "iarmem_plugin.jobs.compare.estimate": ("Estimate", "estimate"),
    "iarmem_plugin.jobs.compare.job": ("compare",),
    "iarmem_plugin.jobs.plan.reading": ("read_plan",),
    "iarmem_plugin.jobs.contrast": ("CrossFit", "contrast", "cross_fit"),
    "iarmem_plugin.activations.leaving_out": ("LeavingOut",),
    "iarmem_plugin.jobs.arms": ("Arm",),
    "iarmem_plugin.jobs.edits.noise": ("LogitNoise",),
    "iarmem_plugin.jobs.edits.training": ("FineTune", "GradientAscent"),
    "iarmem_plugin.jobs.triggers.completing": ("BestOfSamples", "PrefixLadder"),
    "iarmem_plugin.jobs.triggers.embedding": ("LearnedEmbedding",),
    "iarmem_plugin.jobs.triggers.relearning": ("Relearn", "Rounded"),
    "iarmem_plugin.jobs.measuring": ("tune_sampling",),
    "iarmem_plugin.jobs.quality": ("QualityProtocol", "quality_protocol"),
    "iarmem_plugin.jobs.attack": ("ExtractionOptions",),
    "iarmem_plugin.jobs.mitigate": ("mitigate",),
    "iarmem_plugin.jobs.recalibration": ("Recalibration",),
    "iarmem_plugin.activations.distributed": ("Ranks", "join_processes"),
    "iarmem_plugin.activations.settings": ("CaptureOptions", "CaptureSettings"),
    "iarmem_plugin.jobs.auditing.job": ("audit",),
    "iarmem_plugin.report.auditing.audit": ("Audit",),
    "iarmem_plugin.report.auditing.findings": (
        "AuditedPicture",
        "Peak",
        "VerdictCount",
        "VerdictThreshold",
    ),
    "iarmem_plugin.report.membership.showing": ("membership_files", "membership_table"),
    "iarmem_plugin.report.report": ("Report",),
    "iarmem_plugin.report.sides.reports": ("SideBySide", "side_by_side"),
    "iarmem_plugin.report.sides.scores": ("ScoreComparison", "compare_scores"),
    "iarmem_plugin.jobs.scores": ("load_scores", "save_scores"),
    "iarmem_plugin.neurons.listed": ("Listed",),
    "iarmem_plugin.neurons.selectors": ("Highest", "Lowest", "Random", "RandomMatched", "select"),
    "iarmem_plugin.store": ("ActivationStore", "StoreOptions", "score_on_cluster"),
    "iarmem_plugin.models.tracing": ("ImageARModel",),
    "iarmem_plugin.models.intervening": ("intervene",),
    "iarmem_plugin.models.loading": ("load", "wrap"),
    "iarmem_plugin.models.token_by_token": ("TokenByToken",),
}

if not TYPE_CHECKING:  # type checkers know the names above, and no others

    def __getattr__(name: str) -> Any:
        """Import a public name from its module, when it is first asked for."""
        if name == "__version__":
            return import_module("importlib.metadata").version("iarmem")
        module = next((one for one, names in _SOURCES.items() if name in names), None)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        borrowing = import_module("iarmem_plugin.borrowing")
        with borrowing.generators_kept():  # some libraries draw when they are imported
            value = globals()[name] = getattr(import_module(module), name)
        return value

    def __dir__() -> list[str]:
        """List the public names that are not loaded yet, too."""
        return sorted({*globals(), *__all__})
