"""A comparison of many made-up arms: treatments by fraction, random sets beside them, a twin."""

from __future__ import annotations

import numpy as np
import xarray as xr

from iarmem_plugin.evaluation.recognition import Recognition
from iarmem_plugin.interfaces import QualityValue
from iarmem_plugin.report.report import Report
from iarmem_plugin.report.results import ArmResult

from .conftest import HOSTILE, LABEL, make_scores

FRACTIONS = (0.02, 0.05, 0.1)
TOKENS, PREFIX = 40, 4
EXPECTED = {"direction": "fewer", "against": "random", "at": "equal quality", "family": "primary"}


def make_arms(selectors: int, sets: int) -> list[ArmResult]:
    """Return two interventions of so many selectors and random sets, at three fractions each."""
    arms = [ArmResult("original", None, None, None, (), "original")]
    for factor in (0.0, 0.5):
        edit = {"name": "scale-weights", "factor": factor, "backend": "nnsight"}
        for fraction in FRACTIONS:
            for number in range(selectors):
                name = f"selector-{number}"
                about = f"{name} × {factor:g}, {fraction:.0%}"
                quality = (QualityValue(LABEL, 5.0 + number, 512),)
                arms.append(ArmResult(about, edit, {"name": name}, fraction, quality))
            for seed in range(sets):
                about = f"random × {factor:g}, {fraction:.0%}, seed {seed}"
                drawn = {"name": "random", "seed": seed}
                arms.append(ArmResult(about, edit, drawn, fraction, (), "control"))
    return [*arms, ArmResult("twin", None, None, None, (), "twin")]


def make_grid(selectors: int = 5, sets: int = 5, candidates: int = 60) -> Report:
    """Return a report of 2 + 6 · (selectors + sets) arms; a third of the candidates is held out."""
    random, arms = np.random.default_rng(0), make_arms(selectors, sets)
    third, shape = candidates // 3, (len(arms), candidates)
    seen = np.arange(candidates) < 2 * third
    work = np.array([_work(arm) for arm in arms])
    keep = np.exp(-work)[:, None] * np.where(seen, 0.9, 0.05)
    target = random.integers(0, 99, (candidates, TOKENS), dtype=np.int32)
    tokens = np.where(random.random((*shape, TOKENS)) < keep[..., None], target, 99)
    tokens = tokens.astype(np.int32)
    tokens[..., :PREFIX] = target[:, :PREFIX]
    equal = (tokens == target).sum(2, dtype=np.int32)
    similarity = (0.5 * keep + 0.5 * random.random(shape)).astype(np.float32)
    loss = np.where(seen, 1.0, 5.0) + 0.05 * work[:, None] + 0.02 * random.random(shape)
    group = np.repeat(["canary 500", "canary 170", "held-out"], third)
    found = xr.Dataset(
        {
            "similarity": (("arm", "candidate"), similarity),
            "extracted": (("arm", "candidate"), similarity.astype(np.float64) > 0.55),
            "equal_tokens": (("arm", "candidate"), equal),
            "tokens": (("arm", "candidate", "token"), tokens),
            "target_tokens": (("candidate", "token"), target),
            "loss": (("arm", "candidate"), loss),
            "plain_loss": (("arm", "candidate"), loss + 0.1),
            "temperature": ("arm", 1 + 0.1 * work),
        },
        coords={
            "arm": [arm.name for arm in arms],
            "group": ("candidate", group),
            "role": ("candidate", [name.split()[0] for name in group.tolist()]),
            "path": ("candidate", [f"{n}.png" for n in range(len(group))]),
            "label": ("candidate", np.zeros(len(group), np.int32)),
            "image": ("candidate", np.arange(len(group))),
        },
        attrs={
            "threshold": 0.55,
            "threshold_source": "given",
            "similarity": "correlation",
            "prefix_tokens": PREFIX,
        },
    )
    edited = np.zeros((len(arms) - 2, 4, 32), dtype=bool)
    edited[:, 1, :3] = True
    return Report(
        model="var-organism",
        provenance={
            "seed": 0,
            "plan": {
                "model": {"name": "var-organism"},
                "attack": {"prefix": PREFIX, "similarity": HOSTILE},
                "grid": [{"selectors": ["unitmem", "random"], "fractions": list(FRACTIONS)}],
                "expect": [{"arm": "selector-4 × 0.5, 5%", "outcome": "agreement"} | EXPECTED],
            },
            "dropped": [{"name": "=1+1", "before": "images", "why": f"loss above 0.5 {HOSTILE}"}],
            "failed": [{"stage": "losses", "name": "mine", "error": f"RuntimeError: {HOSTILE}"}],
        },
        scores=make_scores(),
        arms=tuple(arms),
        extraction=Recognition(threshold=0.3, source="given").judged(found),
        gallery=(),
        neurons=xr.DataArray(
            edited,
            dims=("arm", "block", "neuron"),
            coords={"arm": [arm.name for arm in arms[1:-1]]},
        ),
    )


def _work(arm: ArmResult) -> float:
    """Return how much an arm damages what is remembered."""
    if arm.role in ("original", "twin"):
        return 0.0 if arm.role == "original" else 4.0
    selector, edit = arm.selector or {}, arm.intervention or {}
    strength = 1.5 - float(edit["factor"])
    kind = int(str(selector["name"])[-1]) if arm.role == "treatment" else 0.4 + selector["seed"] / 9
    return float(strength * (arm.fraction or 0.0) * 6 * (0.3 + kind))
