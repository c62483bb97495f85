"""Make again FID, KID and what real pictures come to, from ``quality.nc``; for ``recompute.py``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Moments = tuple[np.ndarray, np.ndarray]
Found = tuple[str, float | None, float | None]  # what it is, as written, and as made again
FLOOR = ("floor", "floor's reference")
BLOCKS = 10
MEASURES = ("FID", "FD", "KID", "KD")  # the last two in DINOv2's features


class Label:
    """What a value's label says: ``FID (…, reference NAME n=300, generated n=300), one seed``.

    Args:
        text: the label.
    """

    def __init__(self, text: str) -> None:
        self.measure, _, rest = text.partition(" (")
        found = re.search(r", reference (.*) n=(\d+|not recorded), generated n=(\d+)", rest)
        self.reference, real, generated = found.groups() if found else ("", "0", "0")
        self.real = -1 if real == "not recorded" else int(real)
        self.generated = int(generated)
        self.of_real = text[: text.rindex(")") + 1]


@dataclass
class Seen:
    """What was kept of some images: of each seed their features, or mean and covariance."""

    images: int
    features: np.ndarray | None
    moments: list[Moments]


def read_features(file: Path) -> tuple[dict[tuple[str, str], Seen], int]:
    """Return each set of features in a file by kind and name, and the first sampling seed."""
    sets = {}
    with h5py.File(file) as opened:
        for key, one in opened.items():
            what, _, number = key.partition("_")
            if what not in ("features", "mean"):
                continue
            values, features = one[()].astype(np.float64), None
            if what == "features":
                features = values
                moments = [
                    (each.mean(axis=0), np.atleast_2d(np.cov(each, rowvar=False)))
                    for each in values
                ]
            else:
                moments = list(zip(values, opened[f"covariance_{number}"][()], strict=True))
            name = (str(one.attrs["kind"]), str(one.attrs["name"]))
            sets[name] = Seen(np.asarray(one.attrs["images"]).item(), features, moments)
        return sets, np.asarray(opened.attrs["seed"]).item()


def distance(label: Label, one: Seen, other: Seen, seed: int) -> dict[str, float | None]:
    """Return a value, the mean over seeds, with its error and deviation, as far as is known."""
    made, errors = [], []
    for place, moments in enumerate(one.moments):
        images = None if one.features is None else one.features[place]
        if images is not None and label.generated < one.images:
            rows = np.random.default_rng(seed + place).choice(
                len(images), label.generated, replace=False
            )
            images = images[np.sort(rows)]
            moments = images.mean(axis=0), np.atleast_2d(np.cov(images, rowvar=False))
        if label.measure in MEASURES[:2]:
            made.append(frechet(moments, other.moments[0]))
        elif images is not None and other.features is not None:
            value, error = kernel_distance(images, other.features[0])
            made.append(value)
            errors.append(error)
    if not made:
        return {}
    return {
        "value": float(np.mean(made)),
        "error": float(np.mean(errors)) if errors else None,
        "deviation": float(np.std(made, ddof=1)) if len(made) > 1 else None,
    }


def _of_value(name: str, written: dict[str, Any], made: dict[str, float | None]) -> Iterator[Found]:
    for what, value in made.items():
        yield f"{name}: {written['label']}: {what}", written.get(what), value


def kernel_distance(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return KID over all pairs and, each tenth of both sides left out once, its error."""

    def estimate(x: np.ndarray, y: np.ndarray) -> float:
        kernels = [(a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
        within = sum(
            (kernel.sum() - np.trace(kernel)) / (len(kernel) * (len(kernel) - 1))
            for kernel in kernels[:2]
        )
        return float(within - 2 * kernels[2].mean())

    without = np.array(
        [
            estimate(*(np.delete(side, np.s_[block::BLOCKS], axis=0) for side in (one, other)))
            for block in range(BLOCKS)
        ]
    )
    spread = np.square(without - np.mean(without)).sum() * (BLOCKS - 1) / BLOCKS
    return estimate(one, other), float(np.sqrt(spread))


def frechet(one: Moments, other: Moments) -> float:
    """Return |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))."""
    (mean1, spread1), (mean2, spread2) = one, other
    root = np.sqrt(np.linalg.eigvals(spread1 @ spread2).astype(complex)).real.sum()
    apart = np.square(mean1 - mean2).sum()
    return float(apart + np.trace(spread1) + np.trace(spread2) - 2 * root)


def distances(report: dict[str, Any], file: Path) -> Iterator[Found]:
    """Yield every number of ``report.json`` on generated images.

    Args:
        report: what it holds.
        file: the folder's ``quality.nc``; where there is none, nothing is yielded.
    """
    if not file.exists():
        return
    sets, seed = read_features(file)
    floors: dict[str, float | None] = {}
    for name, values in report.get("floors", {}).items():
        for value in values:
            label = Label(value["label"])
            if label.measure not in MEASURES:  # a plugin's own
                continue
            one, other = (sets[kind, label.reference] for kind in FLOOR)
            made = distance(label, one, other, seed)
            floors[value["label"]] = made.get("value")
            yield from _of_value(name, value, made)
    for arm in report["arms"]:
        for value in arm["quality"]:
            label = Label(value["label"])
            if label.measure not in MEASURES:
                continue
            real = sets.get(("reference", label.reference))
            if real is None or real.images != label.real:  # as many as a floor's
                real = sets[FLOOR[1], label.reference]
            made = distance(label, sets["generated", arm["name"]], real, seed)
            yield from _of_value(arm["name"], value, made)
            mine, real_ones = made.get("value"), floors.get(label.of_real)
            if mine is not None and real_ones is not None:
                what = f"{arm['name']}: {value['label']}: below real pictures"
                yield what, float(bool(value["mark"])), float(mine < real_ones)
