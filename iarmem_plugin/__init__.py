"""Find where an image autoregressive model memorized its training images, and reduce it.

The public names; each is imported on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iarmem_plugin.lazy import make_lazy

if TYPE_CHECKING:
    from iarmem_plugin.augmentation import Augmentation, CustomViews
    from iarmem_plugin.capture import capture
    from iarmem_plugin.cluster import score_on_cluster
    from iarmem_plugin.errors import IarmemError
    from iarmem_plugin.evaluation.candidates import Candidates
    from iarmem_plugin.evaluation.extraction import extract
    from iarmem_plugin.evaluation.similarity import SSCD, PixelCorrelation
    from iarmem_plugin.hookspecs import hookimpl
    from iarmem_plugin.images import Images
    from iarmem_plugin.interfaces import (
        Adapter,
        Intervention,
        Metric,
        Quality,
        Sampling,
        Selector,
        Similarity,
    )
    from iarmem_plugin.interventions import (
        ScaleWeights,
        ScaleWeightsAndBiases,
        Zero,
        ZeroWeights,
    )
    from iarmem_plugin.localize import localize
    from iarmem_plugin.mitigate import Arm, mitigate
    from iarmem_plugin.plugins import load
    from iarmem_plugin.ranks import Ranks, joined
    from iarmem_plugin.report import Report
    from iarmem_plugin.score_files import load_scores, save_scores
    from iarmem_plugin.selection import Highest, Lowest, Random, select
    from iarmem_plugin.store import ActivationStore
    from iarmem_plugin.tracing import ImageARModel, intervene
    from iarmem_plugin.version import __version__
    from iarmem_plugin.views import TenCrops, Views
    from iarmem_plugin.wrapping import wrap

__all__ = [
    "SSCD",
    "ActivationStore",
    "Adapter",
    "Arm",
    "Augmentation",
    "Candidates",
    "CustomViews",
    "Highest",
    "IarmemError",
    "ImageARModel",
    "Images",
    "Intervention",
    "Lowest",
    "Metric",
    "PixelCorrelation",
    "Quality",
    "Random",
    "Ranks",
    "Report",
    "Sampling",
    "ScaleWeights",
    "ScaleWeightsAndBiases",
    "Selector",
    "Similarity",
    "TenCrops",
    "Views",
    "Zero",
    "ZeroWeights",
    "__version__",
    "capture",
    "extract",
    "hookimpl",
    "intervene",
    "joined",
    "load",
    "load_scores",
    "localize",
    "mitigate",
    "save_scores",
    "score_on_cluster",
    "select",
    "wrap",
]

make_lazy(
    __name__,
    {
        "iarmem_plugin.augmentation": ("Augmentation", "CustomViews"),
        "iarmem_plugin.capture": ("capture",),
        "iarmem_plugin.cluster": ("score_on_cluster",),
        "iarmem_plugin.errors": ("IarmemError",),
        "iarmem_plugin.evaluation.candidates": ("Candidates",),
        "iarmem_plugin.evaluation.extraction": ("extract",),
        "iarmem_plugin.evaluation.similarity": ("SSCD", "PixelCorrelation"),
        "iarmem_plugin.hookspecs": ("hookimpl",),
        "iarmem_plugin.images": ("Images",),
        "iarmem_plugin.interfaces": (
            "Adapter",
            "Intervention",
            "Metric",
            "Quality",
            "Sampling",
            "Selector",
            "Similarity",
        ),
        "iarmem_plugin.interventions": (
            "ScaleWeights",
            "ScaleWeightsAndBiases",
            "Zero",
            "ZeroWeights",
        ),
        "iarmem_plugin.localize": ("localize",),
        "iarmem_plugin.mitigate": ("Arm", "mitigate"),
        "iarmem_plugin.plugins": ("load",),
        "iarmem_plugin.ranks": ("Ranks", "joined"),
        "iarmem_plugin.report": ("Report",),
        "iarmem_plugin.score_files": ("load_scores", "save_scores"),
        "iarmem_plugin.selection": ("Highest", "Lowest", "Random", "select"),
        "iarmem_plugin.store": ("ActivationStore",),
        "iarmem_plugin.tracing": ("ImageARModel", "intervene"),
        "iarmem_plugin.version": ("__version__",),
        "iarmem_plugin.wrapping": ("wrap",),
        "iarmem_plugin.views": ("TenCrops", "Views"),
    },
)
