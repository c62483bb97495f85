"""What a plan compares: grids of arms, single arms, and rules by which arms are dropped."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from iarmem_plugin.jobs.plan.mistakes import wrong
from iarmem_plugin.jobs.plan.parts import values as of
from iarmem_plugin.jobs.plan.parts.table import Part


class GridPart(Part):
    """Every selector with every intervention at every fraction, and random sets beside them."""

    selectors: tuple[of.InGrid, ...] = Field(default=("highest",), min_length=1)
    """Which neurons; or what scores them by contrast, such as gradient-weight: then the highest."""
    scores: of.Words | None = None
    """Name of the scores, of those in [scores]; by default the first."""
    interventions: tuple[of.Intervention, ...] = Field(default=("scale-weights",), min_length=1)
    """What is done to them, be it with options: NAME:KEY=VALUE."""
    fractions: tuple[of.Fraction, ...] = Field(default=(0.1,), min_length=1)
    """Shares of all neurons, in (0, 1]."""
    random_sets: of.Sets = 5
    """Random sets beside each intervention and fraction, with the same seeds throughout."""
    matched_sets: of.Sets = 0
    """Random sets beside each arm, of the same mean activation as its neurons."""


class ArmPart(Part):
    """One arm: neurons and what is done to them, or an edit of the model."""

    name: of.Words
    """Name in the report, unlike all others."""
    selector: of.Selector | None = None
    """Which neurons; or what scores them by contrast."""
    scores: of.Words | None = None
    """Name of the scores, of those in [scores]; by default the first."""
    intervention: of.Intervention | None = None
    """What is done to the neurons."""
    fraction: of.Fraction | None = None
    """Share of all neurons, in (0, 1]."""
    edit: of.Edit | None = None
    """Edit of the model that chooses no neurons, in place of the four above."""
    seed: of.Seed | None = None
    """Seed of what is drawn; by default the plan's."""
    role: Literal["treatment", "control"] | None = None
    """By default control for random neurons, and else treatment."""

    @model_validator(mode="after")
    def _check_whole(self) -> ArmPart:
        neurons = ("selector", "intervention", "fraction")
        given = [one for one in (*neurons, "scores") if getattr(self, one) is not None]
        if self.edit is not None and given:
            raise wrong(
                f"[[arm]] {self.name!r} has {given[0]!r} and 'edit'; give either selector, "
                "intervention and fraction, or edit",
                given[0],
            )
        missing = [one for one in neurons if one not in given]
        if self.edit is None and missing:
            raise wrong(
                f"[[arm]] {self.name!r} lacks {missing[0]!r}; give selector, intervention and "
                "fraction, or edit",
                missing[0],
            )
        return self


class DropPart(Part):
    """A rule by which an arm is dropped; a control is dropped once all that it stands for are."""

    before: Literal["extraction", "images"]
    """What is left out: completing candidates and all after it, or generating images alone."""
    outcome: Literal["held-out change", "extracted", "recognisable"]
    """What is looked at: the change of the held-out loss in nats a token, or the share of the \
candidates, held-out pictures left out, that is extracted or recognisable."""
    above: of.Number | None = None
    """The arm is dropped where the outcome is above this number."""
    below: of.Number | None = None
    """The arm is dropped where the outcome is below this number."""

    @model_validator(mode="after")
    def _check_rule(self) -> DropPart:
        if (self.above is None) == (self.below is None):
            raise wrong("[[drop]] needs either 'above' or 'below'; give one of them", "above")
        if self.before == "extraction" and self.outcome != "held-out change":
            raise wrong(
                f"[[drop]] {self.outcome!r} is known after extraction, so it cannot decide before "
                "it; expected the outcome 'held-out change', or before = 'images'",
                "outcome",
            )
        return self

    def __str__(self) -> str:
        """Return the rule as a sentence."""
        limit = f"above {self.above:g}" if self.above is not None else f"below {self.below:g}"
        return f"before {self.before}, arms with {self.outcome} {limit} are dropped"
