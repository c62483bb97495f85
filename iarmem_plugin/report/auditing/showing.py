"""An audit as tables for a terminal, as files, and as a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from iarmem_plugin.report.auditing.findings import (
    EXTRACTED,
    MEMBER_LIKE,
    NOTHING,
    RECOGNISABLE,
    VERDICTS,
    AuditedPicture,
    Findings,
    Peak,
    VerdictThreshold,
    in_words,
)
from iarmem_plugin.report.grid.csv_tables import csv_file
from iarmem_plugin.report.page import environment, picture_uri
from iarmem_plugin.report.sides.folder import check_folder, write_folder
from iarmem_plugin.table import TextTable

FILES = ("audit.json", "audit.html", "audit.csv", "values.csv")
MOST = 100  # pictures of one verdict that the page shows; of others it has the names
ENOUGH = 100  # pictures that fix a threshold of 1%
UNLIKELY = 0.025  # of so many false alarms by chance
COLUMNS = (
    *("picture", "class", "verdict", "found_by", "budget", "unit", "similarity", "agreement"),
    *("false_alarms", "false_alarms_low", "false_alarms_high"),
)
MEANINGS = {
    EXTRACTED: "a trigger made the model give the picture back, closer than it comes to pictures "
    "it never saw",
    RECOGNISABLE: "what came back is not that close, but more of its tokens are the true ones than "
    "in pictures never seen",
    MEMBER_LIKE: "the model gives the picture a higher likelihood than pictures never seen: a "
    "statistical hint that it was trained on it, no more",
    NOTHING: "no trigger and no signal told the picture from those that were never seen",
}
NOT_SAID = (
    "Nothing found is no proof of absence: other triggers, larger budgets or longer prefixes may "
    "still bring the picture back. All counts are lower bounds.",
    "The triggers know the picture. Extracted says that the model holds it, not that a user of the "
    "model would meet it by chance.",
    "The held-out pictures must be of the same kind as the audited ones: the same source, subjects "
    "and quality. Where they differ, verdicts may tell the difference in kind, not memory.",
    "Member-like is a statistical hint about one picture, and no evidence that stands alone.",
    "The base model may have seen a picture already, before your fine-tuning. Audit the base "
    "model, too, with the same pictures, and compare.",
)
NEURONS_SAID = (
    "Every picture has some neurons that are most active on it, also one that was never seen. A "
    "high UnitMem says that it stands out there, not that the neuron stores it."
)


def check_audit_folder(folder: str | Path) -> None:
    """Refuse a folder that `Audit.save` would refuse; ask before the work.

    Raises:
        InputError: it is a file, cannot be made, or holds files but no audit.
    """
    check_folder(Path(folder), FILES, holding="audit")


def files(found: Findings, folder: Path) -> Path:
    """Write an audit in place of an earlier one: all of it, or nothing."""
    check_audit_folder(folder)
    contents = {
        "audit.json": (json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n").encode(),
        "audit.html": page(found).encode(),
        "audit.csv": table_file(found),
        "values.csv": values_file(found),
    }
    return write_folder(folder, contents, FILES)


def counts_table(found: Findings) -> TextTable:
    """Return the counts of verdicts beside those of pictures never seen."""
    columns = ("verdict", "pictures", "never-seen ones", "95% interval")
    rows = [
        (one.verdict, f"{one.pictures} of {len(found.pictures)}", *shares)
        for one, shares in zip(found.counts, _false_alarms(found), strict=True)
    ]
    nothing = len(found.having(NOTHING))
    rows.append((NOTHING, f"{nothing} of {len(found.pictures)}", "", ""))
    return TextTable(
        f"Audit of {len(found.pictures)} pictures by {found.model}",
        columns,
        rows,
        numbers=columns[1:],
        notes=(*together(found), *found.left_out, *NOT_SAID[:1]),
    )


def card(found: Findings) -> TextTable:
    """Return what was found of the first picture."""
    one = found.pictures[0]
    share = dict(zip((one.verdict for one in found.counts), _false_alarms(found), strict=True))
    rows = [("verdict", one.verdict), ("that is", MEANINGS[one.verdict])]
    if one.verdict != NOTHING:
        alarms, interval = share[one.verdict]
        rows.append(("found by", one.found))
        rows.append(("same verdict on never-seen ones", f"{alarms}, 95% interval {interval}"))
    rows.append(("best similarity", f"{one.similarity:.3f}"))
    rows.append(("best agreement of tokens", f"{one.agreement:.3f}"))
    rows += [(f"signal {name}", f"{value:.3f}") for name, value in one.signals.items()]
    rows += [("peaks in", peak_text(peak)) for peak in one.neurons]
    notes = (*found.left_out, NOT_SAID[0], NOT_SAID[2])
    return TextTable(f"{one.path}, by {found.model}", ("", ""), rows, notes=notes)


def table_file(found: Findings) -> bytes:
    """Return the CSV file: a row a picture, with its signals and its neurons."""
    signals = list(found.pictures[0].signals)
    most = max(len(one.neurons) for one in found.pictures)
    parts = ("block", "scale", "neuron", "unitmem", "runner_up")
    heads = [f"neuron_{number + 1}_{part}" for number in range(most) for part in parts]
    known = {one.verdict: one for one in found.counts}

    def row(one: AuditedPicture) -> Iterator[Any]:
        count = known.get(one.verdict)
        yield from (one.path, one.label, one.verdict, one.found_by, one.budget, one.unit)
        yield from (one.similarity, one.agreement)
        share = (
            () if count is None else (count.false_alarms / found.held_out, count.low, count.high)
        )
        yield from share or (None,) * 3
        yield from one.signals.values()
        for peak in one.neurons:
            yield from (peak.block, peak.scale, peak.neuron, peak.unitmem, peak.runner_up)
        yield from (None,) * (len(parts) * (most - len(one.neurons)))

    rows = [list(row(one)) for one in found.pictures]
    return csv_file((*COLUMNS, *(f"signal {one}" for one in signals), *heads), rows)


def values_file(found: Findings) -> bytes:
    """Return the CSV file of all that verdicts are made of: a row a picture, judged or not."""
    uses = ("audited", found.pictures), ("never seen", found.unseen), ("fixes", found.fixing)
    rows = sorted(
        ((use, one) for use, pictures in uses for one in pictures),
        key=lambda row: (row[0] != "audited", row[1].number),
    )
    heads = ("picture", "use", "verdict", *(one.column for one in found.thresholds))
    return csv_file(heads, ((one.path, use, one.verdict, *one.values) for use, one in rows))


def tried(found: Findings) -> str:
    """Return the triggers in words."""
    each: dict[str, list[VerdictThreshold]] = {}
    for one in found.thresholds:
        if one.verdict == EXTRACTED:
            each.setdefault(one.found_by, []).append(one)
    words = (
        in_words(key, [one.budget or 0 for one in rows], str(rows[0].unit))
        for key, rows in each.items()
    )
    return "; ".join(words)


def page(found: Findings) -> str:
    """Return the page: counts, what a verdict does not say, and every picture with its verdict."""
    rows = list(zip(found.counts, _false_alarms(found), strict=True))
    beside = {one.verdict: alarms for one, (alarms, _) in rows}
    return (
        environment()
        .get_template("audit.html.j2")
        .render(
            found=found,
            headline=headline(found),
            tried=tried(found),
            meanings=MEANINGS,
            rows=[
                (one.verdict, str(one.pictures), alarms, interval)
                for one, (alarms, interval) in rows
            ],
            together=together(found),
            not_said=(*NOT_SAID, by_chance(found)),
            neurons_said=NEURONS_SAID,
            groups=[
                (one, len(found.having(one)), beside.get(one, ""), _tiles(found, one))
                for one in VERDICTS
            ],
            peaked=[(one, [peak_text(peak) for peak in one.neurons]) for one in found.pictures],
            neurons=any(one.neurons for one in found.pictures),
        )
    )


def headline(found: Findings) -> str:
    """Return the finding in one sentence."""
    count = {one.verdict: one.pictures for one in found.counts}
    return (
        f"Of {len(found.pictures)} pictures, {count[EXTRACTED]} could be extracted, "
        f"{count[RECOGNISABLE]} more came back recognisable, and {count[MEMBER_LIKE]} more look "
        f"like training pictures; in {len(found.having(NOTHING))} nothing was found."
    )


def together(found: Findings) -> Iterator[str]:
    """Yield what the pictures show together, and how thresholds were fixed."""
    one = found.inference
    if one is None:
        yield "Dataset inference is left out: it needs 4 pictures or more a side."
    else:
        enough = (
            f"that is not enough at p < 0.01 with the {one.members} that were tested"
            if one.smallest is None
            else f"{one.smallest} of the {one.members} that were tested are enough for p < 0.01"
        )
        yield (
            f"Dataset inference, that the set as a whole was trained on: p = {one.p:.2g}; {enough}."
        )
    yield (
        f"Thresholds were fixed on {found.calibrating} never-seen pictures, {100 * found.rate:g}% "
        f"of which may pass; of further ones of their kind, about {100 * found.expected:.1f}% are "
        f"to be expected to pass each. False alarms are counted on {found.held_out} others."
    )
    for count in found.counts[:-1]:
        if found.chance(count.false_alarms) < UNLIKELY:
            yield (
                f"More never-seen pictures than that are {count.verdict}: of the audited ones, "
                "too, some may be so by chance. Give more held-out pictures, and see that they are "
                "of the same kind."
            )
    if found.calibrating < ENOUGH:
        yield f"Give {2 * ENOUGH} held-out pictures or more to come nearer to the stated share."


def by_chance(found: Findings) -> str:
    """Return how many of the audited pictures get a verdict although they were never seen."""
    each = found.expected * len(found.pictures)
    return (
        f"Some verdicts come by chance. Of {len(found.pictures)} pictures that the model never "
        f"saw, about {each:.1f} ({100 * found.expected:.1f}%) would get each of the three verdicts;"
        " among your pictures, too, some may be of that kind."
    )


def peak_text(peak: Peak) -> str:
    """Return a neuron in words."""
    whose = f"{peak.runner_up} (never seen)" if peak.held_out else peak.runner_up
    return (
        f"block {peak.block}, neuron {peak.neuron}, scale {peak.scale}: "
        f"UnitMem {peak.unitmem:.2f}, next {whose}"
    )


def _tiles(found: Findings, verdict: Any) -> list[tuple[AuditedPicture, object, object]]:
    """Return pictures, and what came back of them, as URIs; beyond the first ones, names alone."""

    def uri(pixels: np.ndarray | None, place: int) -> object:
        return None if pixels is None or place >= MOST else picture_uri(pixels)

    return [
        (one, uri(one.pixels, place), uri(one.completion, place))
        for place, one in enumerate(found.having(verdict))
    ]


def _false_alarms(found: Findings) -> list[tuple[str, str]]:
    return [
        (
            f"{one.false_alarms} of {found.held_out}",
            f"{100 * one.low:.1f}% to {100 * one.high:.1f}%",
        )
        for one in found.counts
    ]
