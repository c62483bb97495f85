"""Evidence in plain sentences, and in rows of tables for the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from iarmem_plugin.evaluation.evidence.equal import EqualFraction, EqualQuality
from iarmem_plugin.evaluation.evidence.power import SmallestDifference, smallest_difference
from iarmem_plugin.evaluation.losses import LOSS
from iarmem_plugin.report.evidence.checks import Check
from iarmem_plugin.report.evidence.evidence import Cell as Compared
from iarmem_plugin.report.evidence.evidence import Evidence
from iarmem_plugin.report.evidence.hypotheses import Hypothesis
from iarmem_plugin.report.evidence.lines import AGREEMENT, MATCHED, RANDOM
from iarmem_plugin.report.evidence.treatments import Treatment
from iarmem_plugin.report.tables import Cell, Row

KINDS = {RANDOM: "uniform random sets", MATCHED: "random sets matched on mean activation"}
NAMES = {AGREEMENT: "tokens right", LOSS: "their loss (nats a token)"}
MARK = "†"


def primary_sentence(evidence: Evidence) -> str | None:
    """Say in plain words what became of the primary hypothesis; None where there is none."""
    one = evidence.primary
    if one is None:
        return None
    said = f"Primary hypothesis: {one.treatment} {one.declared.expectation}."
    if one.found is None or not one.found.comparable:
        return f"{said} Not comparable: {one.why}."
    if one.verdict == "not comparable":
        return f"{said} Not decided: {one.why}. {_told(one)}"
    alpha = evidence.settings.alpha
    tested = f"p = {one.adjusted:.2g}, α = {alpha:g}{_larger(one)}"
    return f"{said} {one.verdict.capitalize()} ({tested}): {_told(one)}{_caution(one, alpha)}"


def declared_sentence(provenance: Mapping[str, Any]) -> str:
    """Say when expectations were declared, and what was known by then; nothing if not recorded."""
    found = provenance.get("declared")
    if not isinstance(found, Mapping):
        return ""
    known = found.get("completions")
    said = f"Declared on {found.get('date')} (UTC), when {known} arms had been completed here"
    if known == 0:
        return f"{said}: before anything was extracted. Runs elsewhere are not recorded here."
    return f"{said}: what these showed may have been known."


def _larger(one: Hypothesis) -> str:
    """Say by which way of reading curves p is what it is, where they differ."""
    found = one.found
    if not isinstance(found, EqualQuality) or not one.against_sets:
        return ""
    if found.p == found.p_smooth == found.p_last:
        return ""
    return (
        f"; the largest of {found.p:.2g} on straight lines, {found.p_smooth:.2g} on bent ones, and "
        f"{found.p_last:.2g} where curves last cost as little"
    )


def _told(one: Hypothesis) -> str:
    """Say what was found, with the numbers that the verdict rests on."""
    found, outcome = one.found, one.declared.expectation.outcome
    if found is None:
        return ""
    mean = f"{written(outcome, found.controls)}"
    if one.against_sets:
        low, high = (written(outcome, end) for end in (found.control_low, found.control_high))
        other = "curves" if isinstance(found, EqualQuality) else "sets"
        mean += f" on average over the random {other} ({low} to {high})"
    beside = f"{written(outcome, found.value)} over {found.candidates} candidates, against {mean}"
    at = ends = ""
    if isinstance(found, EqualQuality):
        at = f" at ΔNLL {_change(found.change, found.change_low, found.change_high)}"
        if one.against_sets and math.isfinite(found.p_low):
            both = f"{found.p_low:.2g} and {found.p_high:.2g}"
            ends = f" At the ends of ΔNLL's interval, on straight lines, p is {both}."
    good = f"; {found.as_good} of {found.sets} {_as_good(found)}"
    if isinstance(found, EqualQuality) and one.against_sets:
        good += f", and {found.as_good_last} where they last cost as little"
        at += " (no cost: every curve is the unmodified model)" if found.change <= 0 else ""
    apart = f"the difference is {effect_of(outcome, found)}"
    if isinstance(found, EqualQuality) and one.against_sets:
        apart += f", {_apart(outcome, found.effect_smooth)} along the bend"
        apart += f", {_apart(outcome, found.effect_last)} where they last cost as little"
    return f"{beside}{at}{good if one.against_sets else ''}; {apart}.{ends}"


def _as_good(found: EqualFraction) -> str:
    """Say what the curves or sets that count against a treatment are."""
    were = "was" if found.as_good == 1 else "were"
    low = "low or lower" if found.direction == "fewer" else "high or higher"
    ended = found.unreached if isinstance(found, EqualQuality) else 0
    return f"{were} as {low}{f' or ended before ({ended})' if ended else ''}"


def reading_sentence(evidence: Evidence) -> str:
    """Say which points the primary hypothesis's curves were read from."""
    one = evidence.primary
    found = None if one is None or not one.against_sets else one.found
    if not isinstance(found, EqualQuality):
        return ""
    said = (
        f"Of its {found.sets} curves, {found.from_original} are read between the unmodified model "
        f"and their smallest set, and {found.to_all} between a set and all neurons"
    )
    if found.to_all:
        said += ": one edit for every curve, so these readings are more alike than sets are"
    if found.raised:
        said += (
            f". {found.raised} are read from a set that costs less than a smaller one or than the "
            "unmodified model, and is taken to cost as much as that"
        )
    return f"{said}."


def _caution(one: Hypothesis, alpha: float) -> str:
    """Say what a verdict does not show."""
    found = one.found
    if one.verdict == "broken" and found is not None and _opposite(found):
        return (
            " The difference is the other way: what it is held against does better. That was not "
            "the hypothesis, so it has no p."
        )
    if one.verdict == "broken":
        return " That the difference was not shown does not show that there is none."
    if isinstance(found, EqualQuality) and max(found.p_low, found.p_high) > alpha:
        return " At one of them it is above α: the verdict rests on what the treatment costs."
    return ""


def _opposite(found: EqualFraction) -> bool:
    """Tell whether all of an effect's interval is on the side that was not expected."""
    return found.effect_low > 0 if found.direction == "fewer" else found.effect_high < 0


def power_of(evidence: Evidence) -> SmallestDifference | None:
    """Return what the primary hypothesis could have shown, with the spread that the sets have."""
    one = evidence.primary
    if one is None or one.found is None or one.found.sets < 2 or one.found.candidates < 2:
        return None
    family = [other for other in evidence.hypotheses if other.declared.family == "primary"]
    spread = one.found.spread
    return smallest_difference(
        one.found.candidates,
        one.found.sets,
        spread=spread if math.isfinite(spread) and spread > 0 else None,
        tests=len(family),
        alpha=evidence.settings.alpha,
    )


def seeds(evidence: Evidence, model: str) -> list[tuple[str, str]]:
    """Say what each of the three kinds of seeds is here, and what is not known of it."""
    curves = {line.seed for one in evidence.cells for line in one.curves}
    splits = max((len(one.arms) for one in evidence.treatments), default=1)
    fitted = any("cross_fit" in line.selector for line in evidence.lines.treatments)
    halves = f"; {splits} {'split' if splits == 1 else 'splits'} of the candidates into halves"
    return [
        (
            "training",
            f"one set of weights, {model}. What another training seed would give is not in this "
            "report, and no p here speaks of it.",
        ),
        (
            "selection",
            f"{len(curves)} seeds of random sets{halves if fitted else ''}. This is what p speaks "
            "of: whether neurons drawn by chance do as well.",
        ),
        (
            "evaluation",
            "pictures and candidates are fixed. Intervals are 2 000 bootstrap samples of them, "
            "seed 0; completions are greedy or drawn by the seed under Provenance.",
        ),
    ]


def hypothesis_rows(evidence: Evidence) -> tuple[Row, ...]:
    """Return a row for each expectation, the primary first."""
    return tuple(
        Row(f"{one.number}. {one.treatment}", _hypothesis(one)) for one in evidence.hypotheses
    )


def _hypothesis(one: Hypothesis) -> dict[str, Cell]:
    found, expected = one.found, one.declared.expectation
    p = adjusted = pairs = Cell("–")
    if not math.isnan(one.p) and found is not None:
        p, adjusted = Cell(f"{one.p:.2g}", _ways(one)), Cell(f"{one.adjusted:.2g}")
        pairs = Cell(f"{found.paired_p:.2g}" if math.isfinite(found.paired_p) else "–")
    return {
        "expected": Cell(f"{expected}"),
        "family": Cell(one.declared.family or "–"),
        "verdict": Cell(one.verdict, one.why),
        "difference": Cell("–") if found is None else _effect_cell(expected.outcome, found),
        "p": p,
        "by Holm": adjusted,
        "p over candidates": pairs,
    }


def _ways(one: Hypothesis) -> str:
    """Say what p is when the curves are read in other ways."""
    found = one.found
    if not isinstance(found, EqualQuality) or not one.against_sets:
        return ""
    said = f"straight {found.p:.2g}, bent {found.p_smooth:.2g}, last {found.p_last:.2g}"
    if math.isfinite(found.p_low):
        said += f"; {found.p_low:.2g} and {found.p_high:.2g} at ΔNLL's ends"
    return said


def cell_rows(evidence: Evidence, at: str, against: str) -> tuple[Row, ...]:
    """Return a row for each treatment, and a column for each outcome.

    Args:
        evidence: what is shown.
        at: where treatments and random sets are compared.
        against: kind of the random sets.
    """
    rows = []
    for one in evidence.treatments:
        if one.fraction == 1:  # all neurons are one edit, however they are chosen
            continue
        mine = [
            cell
            for cell in evidence.cells
            if (cell.treatment, cell.at, cell.against) == (one.name, at, against)
        ]
        if mine:
            cells = {NAMES.get(cell.outcome, cell.outcome): _compared(cell) for cell in mine}
            rows.append(Row(_marked(one), {"ΔNLL": _cost(one), **cells}))
    return tuple(rows)


def _compared(cell: Compared) -> Cell:
    found = cell.found
    if not found.comparable and isinstance(found, EqualQuality):
        return Cell("not comparable", f"{found.unreached} of {found.sets} curves end before")
    return _effect_cell(cell.outcome, found)


def _effect_cell(outcome: str, found: EqualFraction) -> Cell:
    if not math.isfinite(found.effect):
        return Cell("–")
    beside = f"{written(outcome, found.value)} against {written(outcome, found.controls)}"
    if found.sets > 1:
        low, high = (written(outcome, end) for end in (found.control_low, found.control_high))
        beside += f" ({low} to {high}); {found.as_good} of {found.sets} as good"
        if isinstance(found, EqualQuality) and found.as_good_last != found.as_good:
            beside += f", {found.as_good_last} where they last cost as little"
    if isinstance(found, EqualQuality) and found.sets > 1:
        beside += f"; bent {_apart(outcome, found.effect_smooth)}"
        beside += f", last {_apart(outcome, found.effect_last)}"
    return Cell(effect_of(outcome, found), beside)


def _cost(one: Treatment) -> Cell:
    if not math.isfinite(one.change):
        return Cell("–")
    return Cell(f"{one.change:+.3f}", _interval("{:+.3f}", one.low, one.high).strip())


def _change(value: float, low: float, high: float) -> str:
    return f"{value:+.3f}{_interval('{:+.3f}', low, high)}"


def _marked(one: Treatment) -> str:
    splits = f" (mean of {len(one.arms)} splits)" if len(one.arms) > 1 else ""
    return f"{one.name}{splits}{f' {MARK}' if one.chosen_on_tested else ''}"


def marked(evidence: Evidence) -> bool:
    """Tell whether neurons were chosen, somewhere, on what they are tested on."""
    return any(one.chosen_on_tested for one in evidence.treatments)


def limits(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Yield each family of tests with what its random sets can show."""
    said = {one.declared.family: one.limit for one in evidence.hypotheses if one.declared.family}
    yield from ((family, limit) for family, limit in said.items() if limit)


def check_rows(evidence: Evidence) -> Sequence[Row]:
    """Return a row for each kind of arm that only harms."""
    return tuple(
        Row(
            one.what,
            {
                "arms": Cell(str(len(one.arms)), _costless(one)),
                "ΔNLL": Cell(f"{one.change:+.3f}", _interval("{:+.3f}", one.low, one.high).strip()),
                "reads as worse": Cell("passed" if one.passed else "failed"),
            },
        )
        for one in evidence.checks
    )


def _costless(one: Check) -> str:
    return f"{one.costless} of them alone cost 0 or less" if one.costless else ""


def written(outcome: str, value: float) -> str:
    """Return a value of an outcome: nats a token of a loss, else a share in percent."""
    return f"{value:.3f}" if outcome == LOSS else f"{100 * value:.1f}%"


def effect_of(outcome: str, found: EqualFraction) -> str:
    """Return an effect with its interval: nats a token of a loss, else points of percent."""
    form, scale = ("{:+.3f}", 1.0) if outcome == LOSS else ("{:+.1f}", 100.0)
    ends = _interval(form, scale * found.effect_low, scale * found.effect_high)
    return f"{_apart(outcome, found.effect)}{ends}"


def _apart(outcome: str, value: float) -> str:
    """Return a difference: nats a token of a loss, else points of percent."""
    return f"{value:+.3f}" if outcome == LOSS else f"{100 * value:+.1f} points"


def _interval(form: str, low: float, high: float) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f" [{form.format(low)}, {form.format(high)}]"
