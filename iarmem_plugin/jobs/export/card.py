"""The model card: what was edited and why, what that did, what it does not show, how to undo it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import xarray as xr

from iarmem_plugin.evaluation.counts import RECOGNISABLE, outcomes
from iarmem_plugin.interfaces import Checkpoint, Intervention
from iarmem_plugin.jobs.export.edit import Undoing
from iarmem_plugin.jobs.export.wanted import Measured, Wanted, scored_on
from iarmem_plugin.report.costs import marks_explained
from iarmem_plugin.report.evidence.evidence import evidence_of
from iarmem_plugin.report.evidence.sentences import primary_sentence
from iarmem_plugin.report.results import Results
from iarmem_plugin.report.tables import (
    Cell,
    Row,
    findings,
    loss_rows,
    outcome_rows,
    quality_rows,
    turned,
)
from iarmem_plugin.text import shown

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~$])")
_LIMITS = (
    "Fewer extracted is not forgotten: a picture may still be recognised by its tokens after an "
    "edit that hides it from the attack, and the loss on it may still be far below that on "
    "pictures that were never shown.",
    "Hidden memory can come back: a short optimisation of the input, a longer or another prefix, "
    "drawing several times, or some training on other pictures can restore what this edit hides.",
    "The numbers hold for these candidates, this attack and this measure of similarity, and for no "
    "others; pictures that were not tried may be memorized, too.",
    "An edit of neurons is no proof of deletion, and no substitute for training without a picture.",
)


@dataclass(frozen=True, slots=True)
class Told:
    """What a card tells.

    Attributes:
        wanted: the edit.
        checkpoint: what was edited.
        neurons: which neurons, bool, dims (block, neuron).
        undoing: how far it can be undone.
        file: name of the written file.
        lists: names of the files that list its neurons.
        dtype: precision in which `before` and `after` are taken.
        before: hash of the weights, as a report of the original has it.
        after: hash of the weights, as a report of this file will have it.
    """

    wanted: Wanted
    checkpoint: Checkpoint
    neurons: xr.DataArray
    undoing: Undoing
    file: str
    lists: Sequence[str]
    dtype: str
    before: str
    after: str


def card(told: Told, sha256: str) -> bytes:
    """Return the card as Markdown.

    Args:
        told: what it tells.
        sha256: of the written file.
    """
    parts = [
        *_edited(told, sha256),
        *_why(told.wanted.measured, told.neurons),
        *_effect(told.wanted.measured),
        "## What this does not show",
        "\n".join(f"- {one}" for one in _not_shown(told)),
        "## How to undo it",
        *_undo(told),
    ]
    return ("\n\n".join(parts) + "\n").encode()


def called(intervention: Intervention) -> str:
    """Return an intervention with its options, such as ``scale-weights(factor=0.5)``."""
    said = ", ".join(f"{name}={value}" for name, value in intervention.parameters.items())
    return f"{intervention.name}({said})" if said else intervention.name


def shared_part(measured: Measured) -> Results:
    """Return what a report holds of one arm: the original, its own controls and the twin beside it.

    Of a cross-fitted arm only the candidates of the half that was tested with these neurons are
    left, in all arms; image quality, which mixes both halves, is left out.

    Args:
        measured: the arm, and the report.
    """
    report, arm = measured.report, measured.arm
    alike = [
        one
        for one in report.arms
        if one.role == "control"
        and one.name != arm.name
        and (one.fraction, one.intervention) == (arm.fraction, arm.intervention)
    ]
    twins = [one for one in report.arms if one.role == "twin"]
    arms = (report.arms[0], arm, *alike, *twins)
    extraction = report.extraction.sel(arm=[one.name for one in arms])
    if measured.half is not None:
        mine = extraction["half"].sel(arm=arm.name).to_numpy() == measured.half
        extraction = extraction.isel(candidate=mine)
        arms = tuple(replace(one, quality=()) for one in arms)
    return Results(
        report.model,
        report.provenance,
        report.scores,
        arms,
        extraction,
        gallery=(),
        neurons=None,
        floors=report.floors,
    )


def _loaded(wanted: Wanted) -> str:
    """Say where the file loads: the name of a bundled organism stands for the bundled files."""
    variant = wanted.adapter.variants().get(wanted.model)
    if variant is None or variant.organism is None:
        return "loads wherever that did"
    family = wanted.adapter.name
    return f"is loaded by the name `{family}`, with the tokenizer's file, as any file of {family}"


def _edited(told: Told, sha256: str) -> Iterator[str]:
    facts, wanted = told.checkpoint.facts, told.wanted
    count, size = int(told.neurons.sum()), told.neurons.size
    yield f"# {_plain(_model(wanted))}, mitigated"
    yield (
        f"`{told.file}` holds the transformer of {_plain(_model(wanted))} after an edit of "
        f"{count:,} of {size:,} neurons ({count / size:.4g} of all). It has the entries of the "
        f"original file, and {_loaded(wanted)}. All numbers but those of the edited neurons "
        "are the original's, bit for bit."
    )
    yield "## What was edited"
    yield _table(
        ("", ""),
        [
            ("model", _model(wanted)),
            ("intervention", called(wanted.intervention)),
            ("neurons", f"{count:,} of {size:,}, listed in {' and '.join(told.lists)}"),
            ("original file", f"{facts.get('name')}, sha256 {facts.get('sha256')}"),
            ("this file", f"sha256 {sha256}"),
            (f"weights before, in {told.dtype}", f"weights_sha256 {told.before}"),
            (f"weights after, in {told.dtype}", f"weights_sha256 {told.after}"),
            ("stored as", _stored(told.checkpoint)),
        ],
    )
    by_block = told.neurons.sum("neuron").to_numpy().tolist()
    rows = [(str(block), f"{found:,}") for block, found in enumerate(by_block) if found]
    yield _table(("block", "neurons edited"), rows)


def _model(wanted: Wanted) -> str:
    return wanted.model if wanted.measured is None else wanted.measured.report.model


def _stored(checkpoint: Checkpoint) -> str:
    kinds = dict.fromkeys(
        str(tensor.dtype).removeprefix("torch.") for tensor in checkpoint.state.values()
    )
    return f"{', '.join(kinds)}, as in the original; the edit was made in these numbers"


def _why(measured: Measured | None, neurons: xr.DataArray) -> Iterator[str]:
    yield "## Why these neurons"
    if measured is None:
        yield "They were given as a list; nothing is known here of how they were chosen."
        return
    arm, selector = measured.arm, dict(measured.arm.selector or {})
    name = selector.pop("name", "not known")
    rows = [("selector", f"{name}: {_json({**selector, 'fraction': arm.fraction})}")]
    rows += [(key.replace("_", " "), _json(value)) for key, value in scored_on(measured).items()]
    yield f"Arm “{_plain(arm.name)}” of a report of {_plain(measured.report.model)}."
    yield _table(("", ""), rows)
    if arm.role == "control":
        yield "This arm is a control: its neurons were not chosen to reduce memorization."
    if measured.half is not None:
        yield (
            f"The arm is cross-fitted. These neurons were chosen without half {measured.half} of "
            "the candidates, and tested on that half alone."
        )


def _effect(measured: Measured | None) -> Iterator[str]:
    yield "## What it did"
    if measured is None:
        yield "Not measured: no report was given. `iarmem mitigate` measures it."
        return
    part = shared_part(measured)
    said = part.provenance
    attack = said.get("attack", {})
    similarity, threshold = said.get("similarity", {}), part.extraction.attrs.get("threshold")
    if measured.half is not None:
        yield f"Candidates of half {measured.half} only, in all columns."
    yield (
        f"Each of {part.extraction.sizes['candidate']:,} candidates was completed from its first "
        f"{said.get('prefix_tokens')} tokens and compared with its "
        f"{_plain(attack.get('reference', 'target'))} by {_plain(similarity.get('name'))}; above "
        f"{_number(threshold)} it counts as extracted. In brackets: 95% intervals."
    )
    for outcome in outcomes(part.extraction):
        yield f"### {outcome.capitalize()} candidates"
        yield _cells(outcome_rows(part, outcome))
    if rows := loss_rows(part):
        yield "### Mean loss of the candidates, and its change (nats a token)"
        yield _cells(rows)
    if rows := quality_rows(part):
        yield "### Quality"
        yield _cells(rows)
    declared = tested_at_equal_quality(measured)
    lines = (*findings(part), *marks_explained(part), *declared)
    yield "\n".join(f"- {_plain(one)}" for one in lines)


def tested_at_equal_quality(measured: Measured) -> tuple[str, ...]:
    """Return what the report's primary hypothesis came to, where it is of this arm or its splits.

    Its random sets have other sizes than the arm, so the tables of the card lack them.
    """
    found = evidence_of(measured.report)
    primary = None if found is None else found.primary
    said = None if found is None else primary_sentence(found)
    if primary is None or said is None:
        return ()
    mine = re.sub(r", split \d+$", "", measured.arm.name)
    of_this = mine == primary.declared.subject
    return (f"In the whole report, over all candidates: {said}",) if of_this else ()


def _not_shown(told: Told) -> Iterator[str]:
    yield from _LIMITS
    measured = told.wanted.measured
    if measured is None:
        return
    if RECOGNISABLE not in outcomes(measured.report.extraction):
        yield "Whether candidates are still recognisable by their tokens was not measured."
    if measured.report.losses is None:
        yield "What the edit costs on pictures that were never shown was not measured."
    kinds = {str(one.dtype).removeprefix("torch.") for one in told.checkpoint.state.values()}
    run = str(measured.report.provenance.get("dtype"))
    if run not in kinds:
        yield (
            f"The report was computed in {run}, and this file holds {', '.join(sorted(kinds))}: "
            "rounding may differ in the last bit."
        )


def _undo(told: Told) -> Iterator[str]:
    done, lists = told.undoing, " or ".join(f"`{name}`" for name in told.lists)
    name = told.wanted.intervention.name
    keep = "Keep the original file; its SHA-256 is above."
    if done.factor is None:
        yield (
            f"It cannot be undone from this file: `{name}` does not leave the numbers that it "
            f"replaced, or not to be told from others. {keep}"
        )
        return
    again = f"`{name}` with `factor={done.factor!r}` on the neurons in {lists}"
    exact = "gives every number of the original back to the last bit"
    if done.lost:
        exact = (
            f"gives all but {done.lost:,} of {done.numbers:,} changed numbers back to the last bit "
            "(these were rounded, or too small for the file's precision)"
        )
    yield f"{again} {exact}: this was tried when the file was written. {keep}"


def _cells(rows: tuple[Row, ...]) -> str:
    """Return a table of the report as Markdown: an arm a row."""
    arms = turned(rows)
    lines = [(arm.name, *(_cell(arm.cells[row.name]) for row in rows)) for arm in arms]
    return _table(("arm", *(row.name for row in rows)), lines)


def _cell(cell: Cell) -> str:
    return f"{cell.text} ({cell.remark})" if cell.remark else cell.text


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(one if one == '---' else _plain(one) for one in line)} |" for line in lines
    )


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "the threshold"


def _plain(text: object) -> str:
    """Return a text that Markdown shows as it is."""
    return _MARKDOWN.sub(r"\\\1", shown(text, 2000))
