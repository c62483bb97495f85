"""What a quality measure saw, as the file from which its values can be computed again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

LARGEST = 10_000_000  # bytes of one arm's features that are kept whole


def kept_features(features: np.ndarray) -> xr.Dataset:
    """Return what is kept of some features, [image, feature].

    Returns:
        ``features`` (image, feature), or, above 10 MB, ``mean`` (feature) and ``covariance``
        (feature, other), float64, n - 1; the attribute ``images``.
    """
    if features.nbytes > LARGEST:
        wide = features.astype(np.float64)
        spread = np.atleast_2d(np.cov(wide, rowvar=False))
        found = {
            "mean": ("feature", wide.mean(axis=0)),
            "covariance": (("feature", "other"), spread),
        }
    else:
        narrow = features.astype(np.float32)
        kept = narrow if np.array_equal(narrow, features) else features
        found = {"features": (("image", "feature"), kept)}
    return xr.Dataset(found, attrs={"images": len(features)})


def kept_bytes(images: int, features: int, width: int = 8) -> int:
    """Return how many bytes `kept_features` keeps at most.

    Args:
        images: number of images.
        features: number of features of each.
        width: bytes of a number.
    """
    whole = images * features * width
    return whole if whole <= LARGEST else features * (features + 1) * 8


def features_dataset(
    generated: Mapping[str, xr.Dataset], references: Mapping[str, xr.Dataset]
) -> xr.Dataset | None:
    """Return what was kept of the arms' generated images and of the references, in one dataset.

    Args:
        generated: name of the arm -> from `kept_features`.
        references: name of the reference -> the same.

    Returns:
        the variables of each, by number, such as ``features_0`` with the dims (image_0, feature);
        their attributes ``kind`` (generated, reference), ``name`` and ``images``. None where
        nothing was generated.
    """
    if not generated:
        return None
    sets = [("generated", *one) for one in generated.items()]
    sets += [("reference", *one) for one in references.items()]
    found = {
        f"{what}_{number}": xr.Variable(
            tuple(f"image_{number}" if dim == "image" else dim for dim in values.dims),
            values.values,
            {"kind": kind, "name": name, "images": kept.attrs["images"]},
        )
        for number, (kind, name, kept) in enumerate(sets)
        for what, values in kept.data_vars.items()
    }
    return xr.Dataset(found)
