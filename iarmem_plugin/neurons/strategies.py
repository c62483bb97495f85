"""What is commonly tried, by name: each is text that `create` makes an instance of."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

FACTORS = (0.1, 0.25, 0.5, 0.75)
FRACTIONS = (0.01, 0.05, 0.1)
"""Shares of the neurons that the paper edits."""


def _scaled(what: str, name: str) -> dict[str, str]:
    return {f"{what} × {factor:g}": f"{name}:factor={factor:g}" for factor in FACTORS}


STRATEGIES: Mapping[str, str] = MappingProxyType(
    {
        "weights zeroed": "zero-weights",
        "weights and biases zeroed": "zero",
        **_scaled("weights", "scale-weights"),
        **_scaled("weights and biases", "scale-weights-and-biases"),
        "biases zeroed": "scale-biases:factor=0",
        **_scaled("biases", "scale-biases"),
        "outgoing weights zeroed": "scale-outgoing:factor=0",
        **_scaled("outgoing weights", "scale-outgoing"),
        "mean-ablate": "mean-ablate",
    }
)
"""Interventions: those of arXiv 2509.00488 (section 3.3 and appendix A), and beside them biases
alone, the outgoing side, and the mean activation."""

SELECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "highest": "highest",
        "highest of each block": "highest:pool=block",
        "most active": "highest:by=mean_activation",
        "lowest": "lowest",
        "random": "random",
        "random, matched on mean activation": "random-matched",
    }
)
"""Selectors: the paper's over the model or of each block, and controls."""

BASELINES: Mapping[str, str] = MappingProxyType(
    {
        "logit noise": "logit-noise:std=1",
        "logit noise at +0.05": "logit-noise:change=0.05",
        "fine-tuning": "fine-tune",
        "gradient ascent": "gradient-ascent",
    }
)
"""Edits of the whole model, which choose no neurons; the second costs 0.05 nats a token."""
