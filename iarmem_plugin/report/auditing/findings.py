"""What an audit found: a verdict for each picture, and how often never-seen pictures get one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import UInt8

if TYPE_CHECKING:
    from iarmem_plugin.evaluation.membership.inference import DatasetInference

Verdict = Literal["extracted", "recognisable", "member-like", "nothing found"]
EXTRACTED: Verdict = "extracted"
RECOGNISABLE: Verdict = "recognisable"
MEMBER_LIKE: Verdict = "member-like"
NOTHING: Verdict = "nothing found"
VERDICTS: tuple[Verdict, ...] = (EXTRACTED, RECOGNISABLE, MEMBER_LIKE, NOTHING)
SIGNAL_WORDS = {
    "nll": "likelihood of its tokens",
    "min-k": "likelihood of its unlikeliest tokens",
    "conditional-unconditional": "likelihood with its class against without",
}
APART = ("pictures", "counts", "inference", "thresholds", "unseen", "fixing")
"""What is written in a form or a file of its own."""


@dataclass(frozen=True, slots=True)
class Peak:
    """A neuron that is most active on a picture.

    Attributes:
        block: its block.
        scale: name of the scale at which it is.
        neuron: its number.
        unitmem: UnitMem there, in [0, 1]: how far the picture stands out.
        runner_up: path of the picture on which it is the next most active.
        held_out: whether that is one never seen.
    """

    block: int
    scale: str
    neuron: int
    unitmem: float
    runner_up: str
    held_out: bool


@dataclass(frozen=True, slots=True)
class AuditedPicture:
    """The verdict on one picture.

    Attributes:
        path: the picture.
        label: its class; None where it has none.
        verdict: the strongest that holds: extracted, recognisable, member-like, or nothing found.
        found_by: the first trigger that found it, or the first membership signal; None: nothing.
        budget: smallest budget of the trigger that did.
        unit: what the trigger spends.
        similarity: of the attempt that is most like the picture.
        agreement: largest share of an attempt's completed tokens that are the true ones, in [0, 1].
        signals: membership signals by name; larger is more member-like.
        neurons: neurons that are most active on it, of the highest UnitMem.
        pixels: the picture, small; of one that came back, as the tokenizer gives it, with which
            attempts are compared; uint8.
        completion: of one that came back, the attempt that is most like it, or has most tokens
            right where it is recognisable; uint8.
        values: what is compared with each of the audit's thresholds, in their order.
        number: its place among the pictures as they were given.
    """

    path: str
    label: int | None
    verdict: Verdict
    found_by: str | None
    budget: int | None
    unit: str | None
    similarity: float
    agreement: float
    signals: Mapping[str, float]
    neurons: tuple[Peak, ...] = ()
    pixels: UInt8[np.ndarray, "height width 3"] | None = field(
        default=None, repr=False, compare=False
    )
    completion: UInt8[np.ndarray, "height width 3"] | None = field(
        default=None, repr=False, compare=False
    )
    values: tuple[float, ...] = field(default=(), repr=False)
    number: int = 0

    @property
    def found(self) -> str:
        """Return what found it, in words; empty: nothing."""
        if self.found_by is None:
            return ""
        if self.budget is None:
            return SIGNAL_WORDS.get(self.found_by, self.found_by)
        return in_words(self.found_by, [self.budget], str(self.unit))


@dataclass(frozen=True, slots=True)
class VerdictThreshold:
    """What a picture must be above to get a verdict, fixed on pictures never seen.

    Attributes:
        verdict: the verdict.
        measure: what is compared: similarity, agreement, or a membership signal.
        found_by: the trigger, by key, or the name of the signal.
        budget: budget of the trigger; None of a signal.
        unit: what the trigger spends; None of a signal.
        threshold: a picture whose value is above it gets the verdict.
    """

    verdict: Verdict
    measure: str
    found_by: str
    budget: int | None
    unit: str | None
    threshold: float

    @property
    def column(self) -> str:
        """Return the column of ``values.csv`` that is compared with it."""
        if self.budget is None:
            return f"{self.measure} {self.found_by}"
        return f"{self.measure}, {self.found_by}, {self.budget} {self.unit}"


@dataclass(frozen=True, slots=True)
class VerdictCount:
    """How many pictures get a verdict, and how many that were never seen.

    Attributes:
        verdict: the verdict, or ``"any of these"``.
        pictures: how many of the audited pictures get it.
        false_alarms: how many of the reported never-seen ones do.
        low: lower end of the 95% interval (Clopper and Pearson) of the share of false alarms.
        high: its upper end.
    """

    verdict: str
    pictures: int
    false_alarms: int
    low: float
    high: float


@dataclass(frozen=True, slots=True, repr=False)
class Findings:
    """Which of some pictures a model memorized, as far as was found.

    Attributes:
        model: name of the model.
        pictures: a verdict each, the strongest first.
        counts: of each verdict but nothing found, and of all of these together.
        held_out: number of never-seen pictures on which false alarms are counted.
        calibrating: number of never-seen pictures that fixed the thresholds.
        rate: share of the calibrating pictures that each threshold lets through at most.
        triggers: what was tried, by key.
        inference: what the pictures show together; None where there are fewer than 4 a side.
        left_out: what could not be tried, and why; sentences.
        provenance: how it was made; JSON values.
        thresholds: of every trigger with every budget, and of every signal.
        unseen: the never-seen pictures on which false alarms are counted, with their verdicts.
        fixing: the never-seen pictures that fixed the thresholds.
    """

    model: str
    pictures: tuple[AuditedPicture, ...]
    counts: tuple[VerdictCount, ...]
    held_out: int
    calibrating: int
    rate: float
    triggers: tuple[str, ...]
    inference: DatasetInference | None
    left_out: tuple[str, ...]
    provenance: Mapping[str, Any]
    thresholds: tuple[VerdictThreshold, ...]
    unseen: tuple[AuditedPicture, ...]
    fixing: tuple[AuditedPicture, ...]

    def __repr__(self) -> str:
        """Return the number of pictures of each verdict."""
        named = ", ".join(f"{one.pictures} {one.verdict}" for one in self.counts[:-1])
        return f"{type(self).__name__}({len(self.pictures)} pictures: {named})"

    @property
    def expected(self) -> float:
        """Return the share of never-seen pictures that a threshold lets through, roughly.

        Of n calibrating pictures floor(rate * n) lie above it; a further one of their kind does
        with probability (that + 1) / (n + 1).
        """
        return (self._above + 1) / (self.calibrating + 1)

    def chance(self, false_alarms: int) -> float:
        """Return how likely so many false alarms or more are, of pictures of one kind.

        Beta-binomial: the thresholds are as much a draw as the pictures that are reported.
        """
        from scipy.stats import betabinom

        least = self._above + 1
        drawn = betabinom(self.held_out, least, self.calibrating + 1 - least)
        return float(drawn.sf(false_alarms - 1))

    @property
    def _above(self) -> int:
        return math.floor(self.rate * self.calibrating + 1e-9)

    def having(self, verdict: Verdict) -> tuple[AuditedPicture, ...]:
        """Return the pictures of one verdict."""
        return tuple(one for one in self.pictures if one.verdict == verdict)

    def to_dict(self) -> dict[str, Any]:
        """Return all but the pixels as plain values: what ``audit.json`` holds."""
        names = (one.name for one in fields(self))
        told = (one for one in names if one not in APART)
        return {
            "schema": 1,
            **{one: plain(getattr(self, one)) for one in told},
            "dataset_inference": None if self.inference is None else asdict(self.inference),
            "counts": [asdict(one) for one in self.counts],
            "thresholds": [asdict(one) | {"column": one.column} for one in self.thresholds],
            "pictures": [_written(one) for one in self.pictures],
        }


def in_words(key: str, budgets: Sequence[int], unit: str) -> str:
    """Return a trigger in words.

    Args:
        key: its name, with options.
        budgets: what it may spend.
        unit: of what.

    Example:
        >>> in_words("learned-embedding(budgets=[0,5,10],lr=0.1)", [0, 5, 10], "steps")
        'learned embedding (lr=0.1), 0, 5 or 10 steps'
    """
    name, _, options = key.removesuffix(")").partition("(")
    left = re.sub(r"budgets=\[[^]]*\],?", "", options).strip(",")
    *more, last = map(str, budgets)
    spent = f"{', '.join(more)} or {last}" if more else last
    one = unit.removesuffix("s") if list(budgets) == [1] else unit
    return f"{name.replace('-', ' ')}{f' ({left})' if left else ''}, {spent} {one}"


def plain(value: Any) -> Any:
    """Return a tuple as a list, and a mapping as a dict."""
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


def _written(one: AuditedPicture) -> dict[str, Any]:
    apart = ("pixels", "completion", "values")  # values are in values.csv
    told = {name: plain(getattr(one, name)) for name in one.__slots__ if name not in apart}
    return told | {"neurons": [asdict(peak) for peak in one.neurons]}
