"""Class-balanced subsets: drawn for each class by itself, so that they nest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int, Int64, Integer

from iarmem_plugin.checks import check_integer, check_kind
from iarmem_plugin.errors import InputError


def draw_balanced(
    paths: Sequence[str],
    labels: Integer[np.ndarray, " image"],
    classes: Mapping[int, str],
    *,
    per_class: int,
    seed: int,
    part: int,
) -> Int64[np.ndarray, " subset"]:
    """Draw the same number of pictures of every class.

    Each class is put into an order that depends on (seed, class) and the names of its pictures
    alone, and part 0 is its beginning, part 1 what follows. So a larger part 0 contains a smaller
    one, and different parts of one size share nothing.

    Args:
        paths: name of each picture.
        labels: class of each picture.
        classes: name of each class.
        per_class: number of pictures of each class.
        seed: seed for drawing the pictures.
        part: number of the subset, from 0.

    Returns:
        positions of the chosen pictures, ascending.

    Raises:
        InputError: naming a class that has too few pictures.
    """
    if per_class < 1 or seed < 0 or part < 0:
        raise InputError(
            f"{per_class} pictures a class, seed {seed} and part {part} were given; "
            "expected at least 1 picture, seed and part 0 or more"
        )
    chosen = []
    for label in np.unique(labels).tolist():
        own = sorted(np.flatnonzero(labels == label).tolist(), key=lambda place: paths[place])
        if len(own) < per_class * (part + 1):
            raise InputError(
                f"class {label} ({classes.get(label, label)}) has {len(own)} pictures, and "
                f"{per_class * (part + 1)} are needed for part {part} of {per_class} a class; "
                "ask for fewer"
            )
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, label))))
        order = generator.permutation(len(own))
        chosen += [own[place] for place in order[per_class * part : per_class * (part + 1)]]
    return np.sort(np.array(chosen, np.int64))


def count_for(
    labels: Integer[np.ndarray, " image"], *, per_class: int | None, fraction: float | None
) -> int:
    """Return how many pictures of each class are asked for; of a fraction, at least one.

    1% of ImageNet's 1 281 167 pictures in 1000 classes is 13 a class, 20% is 256.

    Args:
        labels: class of each picture.
        per_class: number of pictures of each class; give this or the fraction.
        fraction: share of all pictures, in (0, 1].

    Raises:
        InputError: if both or neither are given, the fraction is outside (0, 1], or there are no
            classes.
    """
    if (labels < 0).any():
        raise InputError(
            "pictures without classes cannot be drawn class by class; give a list of those that "
            "you want"
        )
    if (per_class is None) == (fraction is None):
        raise InputError(
            f"{per_class} pictures a class and a fraction of {fraction} were asked for; "
            "ask for one of them"
        )
    if fraction is None:
        return per_class or 0
    if not 0 < fraction <= 1:
        raise InputError(f"fraction {fraction} was given; expected more than 0, at most 1")
    return max(1, round(fraction * len(labels) / len(np.unique(labels))))


def positions(indices: Sequence[int] | Int[np.ndarray, " subset"]) -> Int64[np.ndarray, " subset"]:
    """Return positions as an array.

    Args:
        indices: positions in a list of pictures.

    Raises:
        InputError: one is no integer.
    """
    if not isinstance(indices, np.ndarray | range):
        check_kind("positions", indices, (list, tuple), "a list or an array of integers")
        for one in indices:
            check_integer("a position", one)
    chosen = np.asarray(indices)
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        raise InputError(
            f"positions of type {chosen.dtype} and shape {chosen.shape} were given; expected a row "
            "of integers"
        )
    return chosen.astype(np.int64)
