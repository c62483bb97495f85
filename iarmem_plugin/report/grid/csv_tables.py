"""Every table of a report as a CSV file, one row a case, numbers in full."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from iarmem_plugin.evaluation.counts import (
    EXTRACTED,
    RECOGNISABLE,
    count_extracted,
    having_role,
    outcomes,
)
from iarmem_plugin.report.depth.rows import COLUMNS as DEPTH
from iarmem_plugin.report.depth.rows import csv_rows as depth_rows
from iarmem_plugin.report.document import FLOORS, OUTCOMES
from iarmem_plugin.report.evidence.document import (
    CELLS,
    HYPOTHESES,
    cell_rows,
    hypothesis_rows,
)
from iarmem_plugin.report.grid.grouping import columns
from iarmem_plugin.report.recovery.rows import COLUMNS as RECOVERY
from iarmem_plugin.report.recovery.rows import csv_rows as recovery_rows
from iarmem_plugin.report.results import Results

Document = Mapping[str, Any]  # of report.json
Rows = Iterable[Sequence[Any]]
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a cell of text begins with that a spreadsheet would take for a formula."""

COLUMNS = {
    "arms": (
        *("arm", "role", "shown_as", "selector", "selector_options", "intervention"),
        *("intervention_options", "edit", "edit_options", "fraction", "seed", "cross_fit"),
        "neurons_edited",
        *("temperature", "held_out_change", "held_out_low", "held_out_high"),
        *("canaries", "canaries_extracted", "canaries_recognisable"),
        *("candidates", "candidates_extracted", "candidates_recognisable"),
        *("held_out", "false_extracted", "false_recognisable"),
    ),
    "outcomes": (
        *("arm", "group", "role", "outcome", "candidates", "counted", "share", "low", "high"),
        *("agreement", "own_counted", "own_share", "own_low", "own_high"),
    ),
    "losses": (
        *("arm", "group", "role", "loss", "change", "low", "high", "plain_loss", "plain_change"),
    ),
    "quality": ("arm", "real_pictures", "label", "value", "error", "deviation", "mark", "n"),
    "paired": ("arm", "outcome", "before", "after", "lost", "gained", "p"),
    "thresholds": ("arm", "outcome", "threshold", "low", "high", "images", "source"),
    "neurons_by_block": ("arm", "half", "block", "neurons", "edited"),
    "scores_by_block": ("block", "scale", "metric", "sum"),
    "published": (
        *("arm", "extracted", "candidates", "fid", "published_extracted", "published_fid"),
        *("fid_label", "source"),
    ),
    "evidence": CELLS,
    "hypotheses": HYPOTHESES,
    "recovery": RECOVERY,
    "depth": DEPTH,
    "dropped": ("name", "before", "why"),
    "failed": ("stage", "name", "error"),
}
FILES = tuple(f"tables/{name}.csv" for name in COLUMNS)


def csv_tables(results: Results, document: Document) -> dict[str, bytes]:
    """Return the tables that have rows, as files.

    Args:
        results: what is shown.
        document: what ``report.json`` holds of it.

    Returns:
        name of the file, such as ``"tables/arms.csv"`` -> UTF-8, RFC 4180 (lines end in CR LF),
        the columns of `COLUMNS`; empty: not known.
    """
    made: dict[str, Callable[[Results, Document], Rows]] = {
        "arms": _arms,
        "outcomes": _outcomes,
        "losses": _losses,
        "quality": _quality,
        "paired": _paired,
        "thresholds": _thresholds,
        "neurons_by_block": _neurons,
        "scores_by_block": _scores,
        "published": _published,
        "evidence": lambda _, written: cell_rows(written),
        "hypotheses": lambda _, written: hypothesis_rows(written),
        "recovery": lambda found, _: recovery_rows(found.recovery),
        "depth": lambda found, _: depth_rows(found.depth),
    }
    found = {name: list(make(results, document)) for name, make in made.items()}
    for name in ("dropped", "failed"):
        entries = document["provenance"].get(name)
        found[name] = [[entry.get(key) for key in COLUMNS[name]] for entry in records(entries)]
    return {
        f"tables/{name}.csv": csv_file(COLUMNS[name], rows) for name, rows in found.items() if rows
    }


def records(value: object) -> list[Mapping[str, Any]]:
    """Return the mappings of a list, which may come from a file that others wrote."""
    entries = value if isinstance(value, list | tuple) else ()
    return [entry for entry in entries if isinstance(entry, Mapping)]


def csv_file(header: Sequence[str], rows: Rows) -> bytes:
    """Return a table as a file: UTF-8, RFC 4180, no text that a spreadsheet would compute."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode(errors="backslashreplace")


def _cell(value: object) -> str | int | float | None:
    """Return a cell: numbers as they are, a text so that no spreadsheet computes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.startswith(FORMULA) else text


def _arms(results: Results, document: Document) -> Iterator[list[Any]]:
    shown = {arm: label for label, arms in columns(results.arms).items() for arm in arms}
    counts, losses = list(_counted(results)), held_out_changes(results)
    edited = _edited(results)
    for place, (arm, written) in enumerate(zip(results.arms, document["arms"], strict=True)):
        selector, intervention = written["selector"] or {}, written["intervention"] or {}
        edit = written.get("edit") or {}
        yield [
            *(arm.name, arm.role, shown[arm.name]),
            *(selector.get("name"), _options(selector, "seed")),
            *(intervention.get("name"), _options(intervention)),
            *(edit.get("name"), _options(edit, "seed")),
            *(written["fraction"], (selector or edit).get("seed"), "cross_fit" in selector),
            edited.get(arm.name),
            written.get("temperature"),
            *losses.get(arm.name, (None, None, None)),
            *(column[place] for column in counts),
        ]


def _edited(results: Results) -> dict[str, int]:
    """Return how many neurons each arm edited; of a cross-fitted arm, the larger half's."""
    if results.neurons is None:
        return {}
    counts = results.neurons.sum(("block", "neuron")).transpose("arm", ...).values
    counts = counts.reshape(len(counts), -1).max(axis=1)
    names = results.neurons["arm"].values.astype(str).tolist()
    return dict(zip(names, counts.tolist(), strict=True))


def held_out_changes(results: Results) -> dict[str, tuple[float | None, ...]]:
    """Return by arm the change of the held-out loss, and its interval, where it was measured."""
    unseen = results.extraction["group"].values[having_role(results.extraction, "held-out").values]
    if results.losses is None or not unseen.size:
        return {}
    mine = results.losses.sel(group=str(unseen[0]))
    values = zip(*(mine[name].values.tolist() for name in ("change", "low", "high")), strict=True)
    names = (arm.name for arm in results.arms)
    return {
        name: tuple(one if np.isfinite(one) else None for one in row)
        for name, row in zip(names, values, strict=True)
    }


def _counted(results: Results) -> Iterator[list[int | None]]:
    """Yield columns of numbers: canaries, all candidates that were shown, and held-out ones."""
    found, arms = results.extraction, len(results.arms)
    unseen = having_role(found, "held-out")
    rest = ~unseen & ~having_role(found, "generated")
    for among in (having_role(found, "canary"), rest, unseen):
        size = int(among.sum())
        yield [size] * arms
        for outcome in (EXTRACTED, RECOGNISABLE):
            known = size and outcome in outcomes(found)
            counts = count_extracted(found, among, outcome=outcome)["extracted"] if known else None
            yield [None] * arms if counts is None else counts.values.tolist()


def _options(setting: Mapping[str, Any], *others: str) -> str | None:
    left = {key: value for key, value in setting.items() if key not in ("name", *others)}
    return json.dumps(left, ensure_ascii=False) if left else None


def _outcomes(results: Results, document: Document) -> Iterator[list[Any]]:
    roles = _roles(results)
    for arm in document["arms"]:
        for key, outcome in OUTCOMES.items():
            own = arm.get("recalibrated", {}).get(key, {}).get("counts", {})
            for group, counts in arm.get(key, {}).items():
                anew = own.get(group, {})
                yield [
                    *(arm["name"], group, roles[group], outcome, counts["candidates"]),
                    *_shares(counts, outcome),
                    counts.get("agreement"),
                    *(_shares(anew, outcome) if anew else [None] * 4),
                ]


def _shares(counts: Mapping[str, Any], outcome: str) -> list[Any]:
    count = counts[outcome]
    return [count, count / counts["candidates"], counts["low"], counts["high"]]


def _losses(results: Results, document: Document) -> Iterator[list[Any]]:
    roles, names = _roles(results), COLUMNS["losses"][3:]
    for arm in document["arms"]:
        for group, values in arm.get("losses", {}).items():
            yield [arm["name"], group, roles[group], *(values[name] for name in names)]


def _roles(results: Results) -> dict[str, str]:
    names, roles = (results.extraction[one].values.astype(str) for one in ("group", "role"))
    return dict(zip(names.tolist(), roles.tolist(), strict=True))


def _quality(_: Results, document: Document) -> Iterator[list[Any]]:
    names = COLUMNS["quality"][2:]
    for arm in document["arms"]:
        for value in arm["quality"]:
            yield [arm["name"], None, *(value.get(name) for name in names)]
    for floor, values in document.get(FLOORS, {}).items():
        for value in values:
            yield [None, floor, *(value.get(name) for name in names)]


def _paired(_: Results, document: Document) -> Iterator[list[Any]]:
    names = COLUMNS["paired"][2:]
    for arm in document["arms"]:
        for outcome, pair in arm.get("paired", {}).items():
            yield [arm["name"], outcome, *(pair[name] for name in names)]


def _thresholds(results: Results, document: Document) -> Iterator[list[Any]]:
    settings = results.extraction.attrs
    for outcome, name in ((EXTRACTED, "threshold"), (RECOGNISABLE, "recognition_threshold")):
        if name in settings:
            yield [
                None,
                outcome,
                float(settings[name]),
                *[None] * 3,
                settings.get(f"{name}_source"),
            ]
    for arm in document["arms"]:
        anew = arm.get("recalibrated", {})
        for key, outcome in OUTCOMES.items():
            if key in anew:
                ends = (anew[key][end] for end in ("threshold", "threshold_low", "threshold_high"))
                yield [arm["name"], outcome, *ends, anew["images"], None]


def _neurons(results: Results, _: Document) -> Iterator[list[Any]]:
    if results.neurons is None:
        return
    halves = "half" in results.neurons.dims
    counts = results.neurons.sum("neuron")
    counts = counts if halves else counts.expand_dims("half")
    counts, size = counts.transpose("arm", "half", "block"), results.neurons.sizes["neuron"]
    blocks = counts["block"].values.tolist()
    for name, arm in zip(counts["arm"].values.astype(str).tolist(), counts.values, strict=True):
        for half, by_block in enumerate(arm.tolist()):
            for block, edited in zip(blocks, by_block, strict=True):
                yield [name, half if halves else None, block, size, edited]


def _published(_: Results, document: Document) -> Iterator[list[Any]]:
    for one in document.get("published", ()):
        yield [one[name] for name in COLUMNS["published"]]


def _scores(results: Results, document: Document) -> Iterator[list[Any]]:
    table, scores = document["scores"], results.scores
    names = scores.coords.get("scale_name", scores["scale"]).values.astype(str).tolist()
    for block, row in zip(
        scores["block"].values.tolist(), table["by_block_and_scale"], strict=True
    ):
        for scale, total in zip(names, row, strict=True):
            yield [block, scale, table["metric"], total]
