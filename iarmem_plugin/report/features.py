"""What a quality measure saw, as the file from which its values can be computed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

LARGEST = 10_000_000  # bytes of one arm's features that are kept whole


def kept_features(features: Sequence[np.ndarray]) -> xr.Dataset:
    """Return what is kept of the features, [image, feature], of as many images for each seed.

    Returns:
        ``features`` (seed, image, feature), or, above 10 MB and where that is less, ``mean`` (seed,
        feature) and ``covariance`` (seed, feature, other), float64, n - 1; the attribute
        ``images``, a seed's number.
    """
    wide = np.stack(features).astype(np.float64)
    narrow = wide.astype(np.float32)
    kept = narrow if np.array_equal(narrow, wide) else wide
    images, width = wide.shape[1:]
    if kept.nbytes > LARGEST and images > width:
        found = {
            "mean": (("seed", "feature"), wide.mean(axis=1)),
            "covariance": (
                ("seed", "feature", "other"),
                np.stack([np.atleast_2d(np.cov(one, rowvar=False)) for one in wide]),
            ),
        }
    else:
        found = {"features": (("seed", "image", "feature"), kept)}
    return xr.Dataset(found, attrs={"images": images})


def kept_moments(mean: np.ndarray, covariance: np.ndarray, images: int | None) -> xr.Dataset:
    """Return the mean and covariance of a reference from a file, in the place of one seed.

    Args:
        mean: of the features.
        covariance: of the features, n - 1.
        images: number of pictures; -1 is written where it is not recorded.
    """
    found = {
        "mean": (("seed", "feature"), mean[None]),
        "covariance": (("seed", "feature", "other"), covariance[None]),
    }
    return xr.Dataset(found, attrs={"images": -1 if images is None else images})


def kept_bytes(images: int, features: int, seeds: int = 1) -> int:
    """Return how many bytes `kept_features` keeps at most.

    Args:
        images: number of images of each seed.
        features: number of features of each.
        seeds: how often they were made.
    """
    whole = seeds * images * features * 8
    less = whole > LARGEST and images > features
    return seeds * features * (features + 1) * 8 if less else whole


def features_dataset(
    generated: Mapping[str, xr.Dataset],
    references: Mapping[str, xr.Dataset],
    floors: Mapping[str, tuple[xr.Dataset, xr.Dataset]] | None = None,
    *,
    seed: int = 0,
) -> xr.Dataset | None:
    """Return what was kept of the arms' generated images and of real ones, in one dataset.

    Args:
        generated: name of the arm -> from `kept_features`.
        references: name of the reference -> the same, in the place of the first seed.
        floors: name of the reference of a floor -> its two sides, likewise.
        seed: first sampling seed; each other has the next.

    Returns:
        the variables of each, by number, such as ``features_0`` with the dims (seed_0, image_0,
        feature); their attributes ``kind`` (generated, reference, floor: the pictures in the place
        of an arm's, floor's reference: those they are held against), ``name`` and ``images``; the
        attribute ``seed``. None where nothing was generated.
    """
    if not generated:
        return None
    sets = [("generated", *one) for one in generated.items()]
    sets += [("reference", *one) for one in references.items()]
    for name, sides in (floors or {}).items():
        sets += [("floor", name, sides[0]), ("floor's reference", name, sides[1])]
    found = {
        f"{what}_{number}": xr.Variable(
            tuple(f"{dim}_{number}" if dim in ("seed", "image") else dim for dim in values.dims),
            values.values,
            {"kind": kind, "name": name, "images": kept.attrs["images"]},
        )
        for number, (kind, name, kept) in enumerate(sets)
        for what, values in kept.data_vars.items()
    }
    return xr.Dataset(found, attrs={"seed": seed})
