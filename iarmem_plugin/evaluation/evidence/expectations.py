"""What is expected before a run, as plain data, and whether it came true."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.evidence.effects import Direction
from iarmem_plugin.evaluation.evidence.equal import EqualFraction, EqualQuality
from iarmem_plugin.text import shown

At = Literal["equal quality", "equal fraction"]
Outcome = Literal["agreement", "loss", "extracted", "recognisable"]
ROUNDING = 1e-12  # 3 / 60 is 0.05
RANDOM = {"random": "random neurons", "random-matched": "random neurons that are as active"}


@dataclass(frozen=True, slots=True)
class Expectation:
    """What an arm is expected to do to the candidates that are tested.

    Attributes:
        outcome: "agreement", the mean share of completed tokens that are right; "loss", the mean
            loss of the candidates' own tokens, nats a token; or "extracted" or "recognisable",
            the share that is.
        against: "random", "random-matched", or the name of another arm.
        direction: "fewer" where the outcome is expected to be lower than there, else "more".
        at: "equal quality", where the other is read at the arm's ΔNLL; or "equal fraction".

    Raises:
        InputError: another outcome, direction or place.
    """

    outcome: Outcome
    against: str
    direction: Direction
    at: At = "equal quality"

    def __post_init__(self) -> None:
        """Refuse what is not expected here."""
        choices = {
            "outcome": (self.outcome, get_args(Outcome)),
            "direction": (self.direction, get_args(Direction)),
            "at": (self.at, get_args(At)),
        }
        for name, (value, known) in choices.items():
            if value not in known:
                expected = " or ".join(f'"{one}"' for one in known)
                given = shown(repr(value), 60)
                raise InputError(f"{name} of an expectation is {given}; expected {expected}")
        if not isinstance(self.against, str) or not self.against.strip():
            raise InputError(
                f"against of an expectation is {shown(repr(self.against), 60)}; "
                'expected "random", "random-matched" or the name of an arm'
            )

    def __str__(self) -> str:
        """Return the expectation as a sentence without its subject."""
        named = RANDOM.get(self.against) or shown(repr(self.against), 60)
        lower = self.direction == "fewer"
        says = {
            "agreement": f"leaves {'less' if lower else 'more'} of the completed tokens right",
            "loss": f"leaves the candidates' loss {'lower' if lower else 'higher'}",
            "extracted": f"leaves {'fewer' if lower else 'more'} candidates extracted",
            "recognisable": f"leaves {'fewer' if lower else 'more'} candidates recognisable",
        }
        where = "ΔNLL" if self.at == "equal quality" else "fraction"
        return f"{says[self.outcome]} than {named} at equal {where}"

    def p_of(self, found: EqualFraction) -> float:
        """Return the p that decides, before any correction.

        Against random neurons it is the rank's, at equal quality the largest one of all ways to
        read a curve (`judged_p`). One other arm has no rank: there it is `paired_p`, which for
        yes-or-no outcomes is McNemar's, one-sided.
        """
        return found.judged_p if self.against in RANDOM else found.paired_p

    def judged(
        self, found: EqualFraction, *, p: float | None = None, alpha: float = 0.05
    ) -> Judgement:
        """Say whether it came true: p is small enough, and every way to read a curve agrees.

        Args:
            found: the arm against what was expected of it, from `equal_quality` or
                `equal_fraction`, in this direction.
            p: adjusted by `holm` where the expectation is one of a declared family; by default
                that of `found` alone.
            alpha: level, in (0, 1).

        Raises:
            InputError: `found` is of the other direction, or compares at something else.
        """
        at = "equal quality" if isinstance(found, EqualQuality) else "equal fraction"
        if found.direction != self.direction or at != self.at:
            raise InputError(
                f'"{self.direction}" at {self.at} was expected, and "{found.direction}" at {at} '
                "was found; hold the arm against its controls as the expectation says"
            )
        decided = self.p_of(found) if p is None else p
        if not found.comparable or math.isnan(decided):
            return Judgement(None, decided, alpha, found.effect)
        kept = decided <= alpha + ROUNDING and found.agrees
        return Judgement(kept, decided, alpha, found.effect)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether an expectation was kept.

    Attributes:
        kept: True, False where it was broken, None where the two are not comparable.
        p: what it was judged by, adjusted where it is one of a family.
        alpha: the level.
        effect: the arm's mean outcome minus that of its controls.
    """

    kept: bool | None
    p: float
    alpha: float
    effect: float

    @property
    def word(self) -> str:
        """Return "kept", "broken" or "not comparable"."""
        return {True: "kept", False: "broken", None: "not comparable"}[self.kept]

    def __str__(self) -> str:
        """Return the word with what it rests on."""
        if self.kept is None:
            return self.word
        sign = "≤" if self.p <= self.alpha + ROUNDING else ">"
        return f"{self.word}: p = {self.p:.3g} {sign} {self.alpha:g}, effect {self.effect:+.3g}"
