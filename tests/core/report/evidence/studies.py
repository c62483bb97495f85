"""Made-up comparisons whose evidence can be worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from iarmem_plugin.report.report import Report
from iarmem_plugin.report.results import ArmResult, ArmRole, CapturedImage

HALVED = {"name": "scale-weights", "factor": 0.5, "backend": "nnsight"}
CANDIDATES, PICTURES, TOKENS, PREFIX = 10, 6, 24, 4
BEFORE = 0.9  # agreement of the unmodified model


@dataclass
class Study:
    """Arms that are added one by one; each has one agreement and one cost for all."""

    arms: list[ArmResult] = field(default_factory=list)
    right: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with the unmodified model."""
        self.arms.append(ArmResult("original", None, None, None, (), "original"))
        self.right.append(BEFORE)
        self.costs.append(0.0)

    def add(
        self,
        name: str,
        selector: Mapping[str, Any],
        fraction: float,
        right: float,
        cost: float,
        role: ArmRole = "treatment",
    ) -> None:
        """Add an arm that leaves this share of the completed tokens right, at this ΔNLL."""
        self.arms.append(ArmResult(name, HALVED, dict(selector), fraction, (), role))
        self.right.append(right)
        self.costs.append(cost)

    def random(self, sets: int, *, kind: str = "random", **more: Any) -> None:
        """Add random curves: 10% cost 0.1 and 20% cost 0.2; seed s leaves 0.4 + s/100 at 20%."""
        for seed in range(1, sets + 1):
            for fraction in (0.1, 0.2):
                lost = (BEFORE - 0.4 - seed / 100) * fraction / 0.2
                name = f"{kind} {seed}, {fraction:.0%}"
                drawn = {"name": kind, "seed": seed, **more}
                self.add(name, drawn, fraction, BEFORE - lost, fraction, "control")

    def report(
        self,
        expect: Sequence[Mapping[str, Any]] = (),
        *,
        captured: bool = False,
        alpha: float = 0.05,
    ) -> Report:
        """Return the report of all arms."""
        completed = TOKENS - PREFIX
        shape = (len(self.arms), CANDIDATES + PICTURES)
        tested = np.arange(shape[1]) < CANDIDATES
        # the first candidates have a token more and the last one less, so that there is a spread
        sway = np.where(tested, np.where(np.arange(shape[1]) < CANDIDATES // 2, 1, -1), 0)
        equal = np.round(np.array(self.right)[:, None] * completed).astype(np.int32) + sway
        sway = np.where(tested, 0.0, np.where(np.arange(shape[1]) % 2, 0.001, -0.001))
        arms = np.arange(shape[0])[:, None]
        loss = 5.0 + np.array(self.costs)[:, None] + np.where(arms > 0, sway, 0.0)
        found = xr.Dataset(
            {
                "similarity": (("arm", "candidate"), np.zeros(shape, np.float32)),
                "extracted": (("arm", "candidate"), np.zeros(shape, bool)),
                "equal_tokens": (("arm", "candidate"), equal + PREFIX),
                "tokens": (("arm", "candidate", "token"), np.zeros((*shape, TOKENS), np.int32)),
                "loss": (("arm", "candidate"), loss),
                "plain_loss": (("arm", "candidate"), loss),
                "temperature": ("arm", np.ones(shape[0])),
            },
            coords={
                "arm": [arm.name for arm in self.arms],
                "group": ("candidate", np.where(tested, "canary 500", "held-out")),
                "role": ("candidate", np.where(tested, "canary", "held-out")),
                "path": ("candidate", [f"{n}.png" for n in range(shape[1])]),
                "label": ("candidate", np.zeros(shape[1], np.int32)),
                "image": ("candidate", np.arange(shape[1])),
            },
            attrs={
                "threshold": 0.5,
                "threshold_source": "given",
                "similarity": "correlation",
                "prefix_tokens": PREFIX,
            },
        )
        plan = {"evidence": {"sets": 99, "splits": 2, "alpha": 0.05}, "expect": list(expect)}
        return Report(
            model="var-organism",
            provenance={"seed": 0, "plan": plan},
            scores=make_scores(),
            arms=tuple(self.arms),
            extraction=found,
            gallery=(),
            neurons=None,
            captured=(CapturedImage("3.png", 0, 3),) if captured else (),
        )


def make_scores() -> xr.Dataset:
    score = np.random.default_rng(0).random((2, 2, 8)).astype("float32")
    return xr.Dataset(
        {"score": (("block", "scale", "neuron"), score)},
        coords={"valid": (("block", "scale", "neuron"), np.ones(score.shape, bool))}
        | {name: range(size) for name, size in (("block", 2), ("scale", 2), ("neuron", 8))},
        attrs={"metric": "unitmem"},
    )


def expected(arm: str, **more: Any) -> dict[str, Any]:
    """Return what a plan declares: that an arm leaves fewer tokens right at equal quality."""
    usual = {"outcome": "agreement", "against": "random", "direction": "fewer"}
    return {"arm": arm, **usual, "at": "equal quality", "family": "primary", **more}
