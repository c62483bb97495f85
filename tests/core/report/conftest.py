"""A report of four groups and six arms, small enough to count by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.interfaces import QualityValue
from iarmem_plugin.interfaces.organism import role_of
from iarmem_plugin.report.report import Report
from iarmem_plugin.report.results import ArmResult, ArmRole, GalleryRow

HOSTILE = "<script>alert(1)</script>"
GROUPS = ["canary 40"] * 12 + ["held-out"] * 20 + ["canary 1360"] * 12 + [f"member {HOSTILE}"] * 15
# how many of each group an arm extracts, in the order of `GROUPS`
EXTRACTED = {
    "original": (2, 0, 11, 3),
    "highest": (1, 0, 3, 1),
    "lowest": (2, 1, 11, 3),
    "random 1": (2, 0, 9, 3),
    "random 2": (1, 0, 11, 2),
    "random 3": (2, 0, 10, 3),
}
LABEL = "FID (emoji classifier, reference training pictures n=1606, generated n=512)"


def make_scores() -> xr.Dataset:
    score = np.random.default_rng(0).random((4, 6, 32)).astype("float32")
    valid = np.ones(score.shape, dtype=bool)
    valid[0, 0, :5] = False
    score[0, 0, 0] = np.nan
    return xr.Dataset(
        {"score": (("block", "scale", "neuron"), score)},
        coords={
            "block": range(4),
            "scale": range(6),
            "neuron": range(32),
            "scale_name": ("scale", [str(scale) for scale in range(6)]),
            "valid": (("block", "scale", "neuron"), valid),
        },
        attrs={"metric": "unitmem", "settings": {"views": 10}, "nothing": None, "whole": True},
    )


def make_extraction() -> xr.Dataset:
    candidates = len(GROUPS)
    extracted = np.zeros((len(EXTRACTED), candidates), dtype=bool)
    starts = (0, 12, 32, 44)
    for row, counts in zip(extracted, EXTRACTED.values(), strict=True):
        for start, count in zip(starts, counts, strict=True):
            row[start : start + count] = True
    return xr.Dataset(
        {
            "similarity": (("arm", "candidate"), np.where(extracted, 0.97, 0.4).astype("float32")),
            "equal_tokens": (("arm", "candidate"), np.full(extracted.shape, 14, dtype="int32")),
            "extracted": (("arm", "candidate"), extracted),
            "tokens": (("arm", "candidate", "token"), np.zeros((*extracted.shape, 8), "int32")),
        },
        coords={
            "arm": list(EXTRACTED),
            "group": ("candidate", GROUPS),
            "role": ("candidate", [role_of(name) for name in GROUPS]),
            "path": ("candidate", [f"{HOSTILE}/{n}.png" for n in range(candidates)]),
            "label": ("candidate", np.zeros(candidates, dtype="int32")),
            "image": ("candidate", np.arange(candidates)),
        },
        attrs={
            "threshold": 0.9,
            "threshold_source": "half of the held-out pictures",
            "similarity": "correlation",
            "prefix_tokens": 14,
        },
    )


def make_arm(name: str, value: float | None) -> ArmResult:
    quality = (QualityValue(LABEL, value, 512),)
    if name == "original":
        return ArmResult(name, None, None, None, quality, "original")
    kind, _, seed = name.partition(" ")
    selector = {"name": kind, "pool": "model", "seed": int(seed or 0)}
    intervention = {"name": "scale-weights", "factor": 0.5, "backend": "nnsight"}
    role: ArmRole = "control" if kind == "random" else "treatment"
    return ArmResult(name, intervention, selector, 0.1, quality, role)


def make_report() -> Report:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    shown = {"original": (pixels, 0.97, True), "highest": (255 - pixels, 0.4, False)}
    neurons = np.zeros((len(EXTRACTED) - 1, 4, 32), dtype=bool)
    neurons[:, 1, :13] = True
    return Report(
        model="var-organism",
        provenance={"seed": 0, "note": HOSTILE, "loss": float("nan"), "versions": {"torch": "2"}},
        scores=make_scores(),
        arms=tuple(make_arm(name, 10.0 + place) for place, name in enumerate(EXTRACTED)),
        extraction=make_extraction(),
        gallery=(GalleryRow(f"{HOSTILE}/0.png", "canary 1360", pixels, pixels, shown),),
        neurons=xr.DataArray(
            neurons, dims=("arm", "block", "neuron"), coords={"arm": list(EXTRACTED)[1:]}
        ),
    )


@pytest.fixture(scope="session")
def report() -> Report:
    return make_report()


@pytest.fixture(scope="session")
def many(report: Report) -> Report:
    """The report with 36 treatments like ``highest``, and its three random sets."""
    treated = [replace(report.arms[1], name=f"highest {place}") for place in range(36)]
    arms = (report.arms[0], *treated, *report.arms[3:])
    rows = [0, *([1] * 36), 3, 4, 5]
    extraction = report.extraction.isel(arm=rows).assign_coords(arm=[arm.name for arm in arms])
    return replace(report, arms=arms, extraction=extraction, neurons=None, gallery=())


@pytest.fixture(scope="session")
def folder(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.save(tmp_path_factory.mktemp("reports") / "report")
