"""What a plan expects, declared before the run, and what its statistics rest on."""

from __future__ import annotations

import math
from typing import Literal

from iarmem_plugin.jobs.plan.parts import values as of
from iarmem_plugin.jobs.plan.parts.table import Part

Outcome = Literal["agreement", "loss", "extracted", "recognisable"]


class EvidencePart(Part):
    """What the statistics of a comparison rest on."""

    sets: of.Sets = 99
    """Random sets for what is expected in a family, at the fractions that bracket its held-out \
loss; p cannot fall below 1 / (sets + 1)."""
    splits: of.Splits = 1
    """How often candidates are halved anew for neurons that are chosen on them."""
    alpha: of.Between = 0.05
    """Level at which a family of expectations is tested."""

    @property
    def most_tests(self) -> int:
        """How many tests one family may hold, so that Holm's first step can be passed."""
        return math.floor((self.sets + 1) * self.alpha + 1e-9)


class ExpectPart(Part):
    """What an arm is expected to do, against what; declared, so that it is seen to be kept."""

    arm: of.Words
    """Name of the arm; of all of its splits."""
    outcome: Outcome = "agreement"
    """What is looked at, on average over the candidates that are tested: the share of completed \
tokens that are right, the loss of their own tokens, or the share extracted or recognisable."""
    direction: Literal["fewer", "more"] = "fewer"
    """Whether the arm leaves less of it than what it is held against, or more."""
    against: of.Words = "random"
    """What it is held against: random, random-matched, or the name of another arm."""
    at: Literal["equal quality", "equal fraction"] = "equal quality"
    """Held against random sets that cost as much held-out loss, or that are as large."""
    family: of.Words | None = None
    """Name of the family of tests it belongs to, "primary" for the hypothesis of the plan; \
without one, it is reported as kept or broken, and not tested."""
