"""Which class a folder stands for: told by a file, an index or a complete set, never guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from iarmem_plugin.errors import InputError

LARGEST_CLASS = 2**31 - 1  # labels are int32
IMAGENET_CLASSES = 1000
_LINE = re.compile(r"(?P<name>.+?)[\t ,]+(?P<index>\d{1,18})\s*")
_WORDNET = re.compile(r"n\d{8}")
_WORDNET_LINE = re.compile(r"\s*(?P<id>n\d{8})(?:\s(?!\s*\d+\s*$).*)?")


def folder_labels(
    used: Sequence[str],
    *,
    folders: Sequence[str],
    num_classes: int | None,
    given: Mapping[str, int] | None,
) -> dict[str, int]:
    """Return the class of each class folder.

    Args:
        used: names of the folders that hold pictures.
        folders: names of all class folders, sorted.
        num_classes: number of the model's classes, where it is known.
        given: class of each name, where a file maps them.

    Returns:
        the class of each folder that holds pictures.

    Raises:
        InputError: saying why a folder's class cannot be told.
    """
    if given is not None:
        return _from_file(used, given)
    whole = num_classes is not None and len(folders) == num_classes
    indices = {name: int(name) for name in used if re.fullmatch(r"[0-9]+", name)}
    if len(indices) == len(used):
        return _from_indices(indices, folders, num_classes, whole=whole)
    if whole:
        return {name: rank for rank, name in enumerate(folders) if name in set(used)}
    if num_classes == IMAGENET_CLASSES and (ranks := imagenet_ranks()).keys() >= set(used):
        return {name: ranks[name] for name in used}
    odd = next(name for name in used if name not in indices)
    known = "an unknown number of" if num_classes is None else f"{num_classes}"
    raise InputError(
        f"the class of folder {odd!r} cannot be told: there are {len(folders)} folders for "
        f"{known} classes, and the rank of a name is its class only where every class has its "
        f"folder; name the folders by class index, or give {_cure(odd)}"
    )


def imagenet_ranks() -> dict[str, int]:
    """Return the class of each of the thousand WordNet ids of ImageNet (ILSVRC 2012), its rank."""
    text = resources.files("iarmem_plugin.data").joinpath("imagenet_ids.txt").read_text("ascii")
    return {name: rank for rank, name in enumerate(text.split())}


def refuse_labels(
    labels: Integer[np.ndarray, " image"], known: Collection[int] | None, paths: Sequence[str]
) -> None:
    """Refuse labels outside the classes.

    Args:
        labels: class of each picture.
        known: classes that there are; None allows any that a label can be.
        paths: name of each picture.

    Raises:
        InputError: naming the first picture with such a label.
    """
    for label, path in zip(labels.tolist(), paths, strict=True):
        if not 0 <= label <= LARGEST_CLASS or (known is not None and label not in known):
            expected = f"0..{LARGEST_CLASS}" if known is None else f"one of {len(known)} classes"
            raise InputError(
                f"picture {path!r} has label {label}, which is outside the classes; "
                f"expected {expected}"
            )


def read_classes(path: Path, *, num_classes: int | None = None) -> dict[str, int]:
    """Read a file that maps names to classes: a JSON object, or lines of a name and an index.

    Name and index stand apart by a tab, a space or a comma. A list of all WordNet ids, such as
    ImageNet's LOC_synset_mapping.txt, will do, too: an id's class is its rank.

    Args:
        path: file to read.
        num_classes: number of the model's classes; a list of WordNet ids must have as many.

    Raises:
        InputError: naming the line that cannot be read, a class that is too large, or a name or
            class given twice; or if a list of WordNet ids is incomplete.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the classes file {path} cannot be read: {error}") from error
    if text.lstrip().startswith("{"):
        pairs = _json_pairs(text, path)
    else:
        pairs = _wordnet_pairs(text, path, num_classes) or _line_pairs(text, path)
    table = dict(pairs)
    if not table or len(table) != len(pairs):
        raise InputError(f"the classes file {path} is empty or gives a name twice")
    for name, index in pairs:
        if index > LARGEST_CLASS:
            raise InputError(
                f"the classes file {path} maps {name!r} to {index}; "
                f"expected a class in 0..{LARGEST_CLASS}"
            )
    named(table)
    return table


def named(table: Mapping[str, int]) -> dict[int, str]:
    """Return the name of each class.

    Args:
        table: class of each name.

    Raises:
        InputError: if two names stand for one class.
    """
    names: dict[int, str] = {}
    for name, label in table.items():
        if label in names:
            raise InputError(f"{names[label]!r} and {name!r} are both mapped to class {label}")
        names[label] = name
    return names


def _from_file(used: Sequence[str], given: Mapping[str, int]) -> dict[str, int]:
    missing = [name for name in used if name not in given]
    if missing:
        raise InputError(f"the classes file has no line for {len(missing)} folders: {missing[:5]}")
    return {name: given[name] for name in used}


def _from_indices(
    indices: dict[str, int], folders: Sequence[str], num_classes: int | None, *, whole: bool
) -> dict[str, int]:
    if not indices:  # every picture has a label of its own
        return {}
    last = LARGEST_CLASS if num_classes is None else num_classes - 1
    # empty folders count, too: whether 9 holds pictures must not change what 1 means
    numbers = [int(name) for name in folders if re.fullmatch(r"[0-9]+", name)]
    if max([*indices.values(), *numbers]) <= last:
        named(indices)
        return indices
    ranks = {name: rank for rank, name in enumerate(folders)}
    if whole and all(name.isdigit() for name in ranks) and _in_order(folders):
        return {name: ranks[name] for name in indices}
    largest = max(indices, key=lambda name: indices[name])
    raise InputError(
        f"folder {largest!r} is outside the classes 0..{last}; "
        "name the folders by class index from 0, or give a classes file"
    )


def _cure(folder: str) -> str:
    if _WORDNET.fullmatch(folder):
        return "ImageNet's own list of all ids, LOC_synset_mapping.txt, as the classes file"
    return "a classes file"


def _in_order(folders: Sequence[str]) -> bool:
    return sorted(folders, key=int) == list(folders)


def _json_pairs(text: str, path: Path) -> list[tuple[str, int]]:
    try:
        pairs: list[tuple[str, int]] = json.loads(text, object_pairs_hook=list)
    except ValueError as error:  # JSONDecodeError, or a number of thousands of digits
        raise InputError(f"the classes file {path} is not JSON: {error}") from error
    for name, index in pairs:
        if type(index) is not int or index < 0:
            raise InputError(f"the classes file {path} maps {name!r} to {index!r}, not a class")
    return pairs


def _wordnet_pairs(text: str, path: Path, num_classes: int | None) -> list[tuple[str, int]]:
    lines = [line for line in text.splitlines() if line.strip()]
    matches = [_WORDNET_LINE.fullmatch(line) for line in lines]
    ids = sorted({match["id"] for match in matches if match is not None})
    if None in matches or not ids:
        return []
    if len(ids) != (len(lines) if num_classes is None else num_classes):
        raise InputError(
            f"the classes file {path} lists {len(ids)} different WordNet ids; an id's class is its "
            f"rank among all, so expected {num_classes or len(lines)}; or give each its index"
        )
    return [(name, rank) for rank, name in enumerate(ids)]


def _line_pairs(text: str, path: Path) -> list[tuple[str, int]]:
    pairs = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise InputError(
                f"line {number} of the classes file {path} is {line!r}; "
                "expected a name, then a tab, space or comma, then a class index"
            )
        pairs.append((match["name"].strip(), int(match["index"])))
    return pairs
