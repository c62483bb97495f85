"""Which candidates and which arms of two reports are the same."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from iarmem_plugin.errors import InputError
from iarmem_plugin.fingerprint import canonical_json
from iarmem_plugin.report.document import plain
from iarmem_plugin.report.results import ArmResult, Results
from iarmem_plugin.text import shown

SAME = 0.5
"""Share of a target's tokens that are equal where two are of one picture; others share few."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """The candidates that are in both of two reports.

    Attributes:
        first: their places in the first report, int, dims (candidate).
        second: their places in the second, in the same order.
        alone: how many are in the first alone, and how many in the second alone.
        renamed: how many of the pairs have two names, and were told by their tokens.
        unlike: how many names are in both that do not stand for one picture.
    """

    first: np.ndarray
    second: np.ndarray
    alone: tuple[int, int]
    renamed: int
    unlike: int


def pair_candidates(first: Results, second: Results) -> Pairs:
    """Pair the candidates that are the same picture.

    These have one path and one label; where both reports hold the targets' tokens by the same
    tokenizer, most of these are equal, too, and pictures under other paths are found by them. The
    models may differ. Images that a model drew itself are paired by their tokens alone.

    Raises:
        InputError: there is none in both.
    """
    tokens = _comparable(first, second)
    rows, columns = _named_alike(first, second)
    same = _same_label(first, second, rows, columns)
    drawn = _drawn(first)[rows] | _drawn(second)[columns]
    if tokens is None:
        same &= ~drawn
    elif rows.size:
        same &= (tokens[0][rows] == tokens[1][columns]).mean(axis=1) > SAME
    unlike = int((~same & ~drawn).sum())
    rows, columns = rows[same], columns[same]
    moved = np.empty((0, 2), np.int64) if tokens is None else _moved(*tokens, rows, columns)
    every = np.concatenate((np.column_stack((rows, columns)), moved))
    every = every[np.argsort(every[:, 0], kind="stable")]
    sizes = [one.extraction.sizes["candidate"] for one in (first, second)]
    if not len(every):
        names = [shown(_texts(one, "path")[0], 60) for one in (first, second)]
        raise InputError(
            f"no candidate is in both reports: the first begins with {names[0]}, the second with "
            f"{names[1]}; give two reports on the same pictures"
        )
    alone = (sizes[0] - len(every), sizes[1] - len(every))
    return Pairs(every[:, 0], every[:, 1], alone, len(moved), unlike)


def pair_arms(first: Results, second: Results) -> tuple[tuple[ArmResult, ArmResult], ...]:
    """Pair the arms with the same settings, in the order of the first; their names may differ."""
    left: dict[str, list[ArmResult]] = defaultdict(list)
    for arm in second.arms:
        left[_settings(arm)].append(arm)
    return tuple(
        (arm, left[_settings(arm)].pop(0)) for arm in first.arms if left.get(_settings(arm))
    )


def _settings(arm: ArmResult) -> str:
    names = ("role", "intervention", "selector", "fraction", "edit")
    return canonical_json({name: plain(getattr(arm, name)) for name in names})


def _texts(results: Results, name: str) -> list[str]:
    found: list[str] = results.extraction[name].to_numpy().astype(str).tolist()
    return found


def _named_alike(first: Results, second: Results) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the paths that are in both, in the order of the first."""
    places = {path: place for place, path in reversed(list(enumerate(_texts(second, "path"))))}
    found = [(row, places.pop(path, -1)) for row, path in enumerate(_texts(first, "path"))]
    kept = np.array([pair for pair in found if pair[1] >= 0], np.int64).reshape(-1, 2)
    return kept[:, 0], kept[:, 1]


def _same_label(
    first: Results, second: Results, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    labels = [one.extraction["label"].to_numpy() for one in (first, second)]
    same: np.ndarray = labels[0][rows] == labels[1][columns]
    return same


def _drawn(results: Results) -> np.ndarray:
    """Tell which candidates the model drew itself: their names say nothing."""
    found: np.ndarray = results.extraction["role"].to_numpy() == "generated"
    return found


def _comparable(first: Results, second: Results) -> tuple[np.ndarray, np.ndarray] | None:
    """Return both reports' target tokens, where one tokenizer made them."""
    made_by = {one.provenance.get("tokenizer_sha256") for one in (first, second)}
    held = all("target_tokens" in one.extraction for one in (first, second))
    if len(made_by) > 1 or None in made_by or not held:
        return None
    found = [one.extraction["target_tokens"].to_numpy() for one in (first, second)]
    same = found[0].shape[1:] == found[1].shape[1:] and found[0].ndim == 2
    return (found[0], found[1]) if same else None


def _moved(
    ours: np.ndarray, theirs: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Return pairs of those that are left, whose tokens are all equal, dims (pair, report)."""
    left = np.setdiff1d(np.arange(len(theirs)), columns)[::-1]
    places = {theirs[place].tobytes(): int(place) for place in left}
    own = np.setdiff1d(np.arange(len(ours)), rows)
    found = [(int(row), places.pop(ours[row].tobytes(), -1)) for row in own]
    return np.array([pair for pair in found if pair[1] >= 0], np.int64).reshape(-1, 2)
