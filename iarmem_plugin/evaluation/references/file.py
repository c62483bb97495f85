"""Real pictures as a quality measure saw them, from a file: made once, or published statistics."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from jaxtyping import Float

from iarmem_plugin.data.npz import read_npz
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.statistics import MOST
from iarmem_plugin.files import check_file, write_whole
from iarmem_plugin.interfaces import Quality, QualityValue
from iarmem_plugin.text import shown

NAMES = ("mu", "sigma", "features", "n", "made_by")
_MAY_DIFFER = ("tool", "kid", "network")  # versions of tools, and how two sides are compared


@dataclass(frozen=True, slots=True, repr=False)
class ReferenceFeatures:
    """What a quality measure saw of real pictures.

    Attributes:
        mean: mean of the features.
        covariance: their covariance, n - 1.
        images: number of pictures; None where it is not recorded, as in published statistics.
        features: features of all pictures, or of 20 000, evenly spaced, of more; None where only
            mean and covariance are known.
        made_by: what made them: the measure's ``provenance`` and the ``views``; None if given.
        sha256: hash of the file.
        file: the file's name.

    Raises:
        InputError: not finite, not symmetric, or of sizes that do not belong together.
    """

    mean: Float[np.ndarray, " feature"]
    covariance: Float[np.ndarray, "feature feature"]
    images: int | None
    features: Float[np.ndarray, "image feature"] | None = None
    made_by: Mapping[str, Any] | None = None
    sha256: str = ""
    file: str = ""

    def __repr__(self) -> str:
        """Return numbers of pictures and features."""
        return f"ReferenceFeatures({self.name!r}, images={self.images}, features={len(self.mean)})"

    def __post_init__(self) -> None:
        """Refuse what is no mean and covariance of features."""
        for what, one in (("mu", self.mean), ("sigma", self.covariance)):
            _refuse(not bool(np.isfinite(one).all()), f"{what} has values that are not finite")
        spread = np.diagonal(self.covariance)
        scale = float(np.abs(spread).max(initial=0.0))
        alike = np.allclose(self.covariance, self.covariance.T, rtol=1e-5, atol=1e-7 * scale)
        _refuse(not alike, "sigma is not symmetric")
        _refuse(bool((spread < 0).any()), "sigma has a variance below 0")
        if self.features is not None:
            self._check_features(self.features)

    def _check_features(self, features: np.ndarray) -> None:
        _refuse(not bool(np.isfinite(features).all()), "features has values that are not finite")
        _refuse(
            self.images is None or self.images < len(features),
            f"features has {len(features)} rows, and n is {self.images}",
        )
        apart = np.abs(features.mean(axis=0) - self.mean).max(initial=0.0)
        limit = 1e-4 * max(1.0, float(np.abs(self.mean).max(initial=0.0)))
        whole = len(features) == self.images
        _refuse(whole and bool(apart > limit), "mu is not the mean of features")

    @property
    def name(self) -> str:
        """What labels call it."""
        return f"{'statistics' if self.features is None else 'features'} sha256 {self.sha256[:12]}"

    @property
    def provenance(self) -> dict[str, Any]:
        """What a report says of it, as JSON values."""
        return {
            "file": self.file,
            "sha256": self.sha256,
            "images": self.images,
            "holds": "mean and covariance" + ("" if self.features is None else ", features"),
            "made_by": dict(self.made_by) if self.made_by else "given",
        }

    def check_seen_by(
        self, measure: Quality, views: Mapping[str, Any] | None, width: int | None = None
    ) -> None:
        """Refuse features of another extractor, or of pictures that were cut otherwise.

        Args:
            measure: sees the generated images.
            views: `provenance` of the model's views; None leaves them out.
            width: how many features the measure gives; None leaves it out.

        Raises:
            InputError: naming what differs.
        """
        if width not in (None, len(self.mean)):
            raise InputError(
                f"the reference {shown(self.file)} has {len(self.mean)} features, and "
                f"{measure.name!r} gives {width}; make it with the same extractor"
            )
        made, now = (
            (self.made_by or {}).get("measure", {}),
            json.loads(_text(dict(measure.provenance))),
        )
        odd = [key for key in made if key not in _MAY_DIFFER and made[key] != now.get(key)]
        if odd:
            raise InputError(
                f"the reference {shown(self.file)} was made with {odd[0]} "
                f"{shown(made[odd[0]], 80)}, and here it is {shown(now.get(odd[0]), 80)}; give the "
                "same extractor, or make the file anew with 'iarmem features'"
            )
        cut = (self.made_by or {}).get("views")
        if views is not None and cut is not None and cut != json.loads(_text(dict(views))):
            raise InputError(
                f"the pictures of the reference {shown(self.file)} were cut as for another model; "
                "make it anew with 'iarmem features' and this model"
            )

    def compared(self, measure: Quality, generated: np.ndarray) -> list[QualityValue]:
        """Compare generated images with it; what needs features is left out where there are none.

        Args:
            measure: what saw both.
            generated: features of the generated images.
        """
        return measure.compare_moments(
            *(generated.copy(), self.mean.copy(), self.covariance.copy()),
            features=None if self.features is None else self.features.copy(),
            images=self.images,
            reference_name=self.name,
        )

    def save(self, path: Path) -> None:
        """Write it as an .npz file, which `load` and ADM's and pytorch-fid's tools read.

        Raises:
            InputError: it cannot be written.
        """
        check_file(path)
        arrays: dict[str, Any] = {"mu": self.mean, "sigma": self.covariance}
        if self.images is not None:
            arrays["n"] = np.int64(self.images)
        if self.features is not None:
            narrow = self.features.astype(np.float32)
            arrays["features"] = narrow if np.array_equal(narrow, self.features) else self.features
        arrays["made_by"] = np.array(_text(dict(self.made_by or {})))
        with io.BytesIO() as buffer:
            np.savez(buffer, **arrays)
            write_whole(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> ReferenceFeatures:
        """Read what `save` wrote, or ``mu`` and ``sigma`` of others, or ``features`` alone.

        Raises:
            InputError: the file holds neither, or cannot be what it says.
        """
        found = read_npz(path, NAMES, what="the features of pictures")
        try:
            return cls(**_fields(found), sha256=_digest(path), file=path.name)
        except InputError as error:
            raise InputError(f"{shown(path)} is no reference: {error}") from error


def holds_features(path: Path | None) -> bool:
    """Tell whether a file holds features or their statistics, and not pictures."""
    if path is None or path.suffix.lower() != ".npz" or not path.is_file():
        return False
    try:
        with ZipFile(path) as archive:
            names = set(archive.namelist())
    except (BadZipFile, OSError):
        return False
    return {"mu.npy", "sigma.npy"} <= names or (
        "features.npy" in names and not {"images.npy", "arr_0.npy"} & names
    )


def see_all(
    measure: Quality, batches: Iterable[Float[np.ndarray, "_ feature"]], images: int
) -> ReferenceFeatures:
    """Sum up features of many pictures, batch after batch; of more than 20 000, as many are kept.

    Args:
        measure: what saw them.
        batches: features of pictures in their order.
        images: number of pictures.

    Raises:
        InputError: there are fewer than the measure needs.
    """
    if images < measure.minimum:
        raise InputError(
            f"{images} images are too few for a reference: {measure.name!r} needs "
            f"{measure.minimum} or more"
        )
    wanted = np.linspace(0, images - 1, min(images, MOST)).round().astype(int)
    seen, kept = 0, []
    mean: Any = 0.0
    products: Any = 0.0
    for batch in batches:
        rows = batch.astype(np.float64)
        own, count = rows.mean(axis=0), len(rows)
        centred, apart = rows - own, own - mean
        total = seen + count
        products = products + centred.T @ centred + np.outer(apart, apart) * (seen * count / total)
        mean = mean + apart * (count / total)
        kept.append(batch[wanted[(wanted >= seen) & (wanted < total)] - seen])
        seen = total
    return ReferenceFeatures(
        mean, products / (seen - 1), seen, np.concatenate(kept).astype(np.float64)
    )


def _fields(found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    features = found.get("features")
    if features is not None:
        _refuse(features.ndim != 2 or features.dtype.kind != "f", "features is not [image, number]")
        features = features.astype(np.float64)
    if features is not None and "mu" not in found:
        _refuse(len(features) < 2, "features has fewer than two rows")
        mean, spread = features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))
    else:
        _refuse(not {"mu", "sigma"} <= set(found), "it holds neither mu and sigma nor features")
        mean, spread = found["mu"], found["sigma"]
    _refuse(mean.ndim != 1 or mean.dtype.kind != "f", "mu is not a row of numbers")
    square = spread.shape == (len(mean), len(mean)) and spread.dtype.kind == "f"
    _refuse(not square, f"sigma is {spread.shape}, and mu has {len(mean)} numbers")
    wide = features is not None and features.shape[1] != len(mean)
    _refuse(wide, f"features and mu have other numbers an image, and mu has {len(mean)}")
    images = found.get("n")
    if images is not None:
        _refuse(images.shape != () or images.dtype.kind not in "iu", "n is not a whole number")
    return {
        "mean": mean.astype(np.float64),
        "covariance": spread.astype(np.float64),
        "images": _count(images, features),
        "features": features,
        "made_by": _made_by(found.get("made_by")),
    }


def _count(images: np.ndarray | None, features: np.ndarray | None) -> int | None:
    if images is not None:
        return int(images)
    return None if features is None else len(features)


def _made_by(text: np.ndarray | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = json.loads(str(text))
    except ValueError:
        found = None
    _refuse(
        not isinstance(found, dict) or not isinstance(found.get("measure", {}), dict),
        "made_by is not what 'iarmem features' writes",
    )
    assert isinstance(found, dict)
    return found


def _refuse(wrong: bool, reason: str) -> None:
    if wrong:
        raise InputError(reason)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
