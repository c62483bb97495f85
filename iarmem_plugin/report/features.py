"""What a quality measure saw, as the file from which its values can be computed again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

LARGEST = 10_000_000  # bytes of one arm's features that are kept whole
WHOLE, MEAN, COVARIANCE = "features", "mean", "covariance"


def features_dataset(
    generated: Mapping[str, np.ndarray], references: Mapping[str, np.ndarray]
) -> xr.Dataset | None:
    """Return the features of the arms' generated images and of the references.

    Args:
        generated: name of the arm -> [image, feature].
        references: name of the reference -> [image, feature].

    Returns:
        of each, by number, ``features_N`` with the dims (image_N, feature), or, where an arm has
        more than 10 MB, ``mean_N`` and ``covariance_N`` (n - 1), float64; the attributes ``kind``
        (generated, reference), ``name`` and ``images``. None where nothing was generated.
    """
    if not generated:
        return None
    large = max(one.nbytes for one in generated.values()) > LARGEST
    sets = [("generated", *one) for one in generated.items()]
    sets += [("reference", *one) for one in references.items()]
    found: dict[str, xr.Variable] = {}
    for number, (kind, name, features) in enumerate(sets):
        about = {"kind": kind, "name": name, "images": len(features)}
        if large:
            found |= _moments(features, number, about)
        else:
            kept = _narrowest(features)
            found[f"{WHOLE}_{number}"] = xr.Variable((f"image_{number}", "feature"), kept, about)
    return xr.Dataset(found)


def _moments(features: np.ndarray, number: int, about: dict[str, object]) -> dict[str, xr.Variable]:
    wide = features.astype(np.float64)
    spread = np.atleast_2d(np.cov(wide, rowvar=False))
    return {
        f"{MEAN}_{number}": xr.Variable("feature", wide.mean(axis=0), about),
        f"{COVARIANCE}_{number}": xr.Variable(("feature", "other"), spread, about),
    }


def _narrowest(features: np.ndarray) -> np.ndarray:
    """Return features as float32 where that loses nothing."""
    narrow = features.astype(np.float32)
    return narrow if np.array_equal(narrow, features) else features
