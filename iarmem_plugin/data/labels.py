"""Which class a folder stands for: told by a file, an index or a complete set, never guessed."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from iarmem_plugin.data.folders import some
from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown
from iarmem_plugin.untrusted import parse_json, read_text

LARGEST_CLASS = 2**31 - 1  # labels are int32
IMAGENET_CLASSES = 1000
_BETWEEN = ("\t", " ", ",")
_INDEX = re.compile(r"[0-9]{1,18}")
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
    if strangers := sorted(set(used) - set(folders)):
        raise InputError(
            f"'{shown(strangers[0], 60)}' is not a class folder; name a picture in one, or write "
            "its label after a tab"
        )
    if whole:
        return {name: rank for rank, name in enumerate(folders) if name in set(used)}
    if num_classes == IMAGENET_CLASSES and (ranks := imagenet_ranks()).keys() >= set(used):
        return {name: ranks[name] for name in used}
    odd = next(name for name in used if name not in indices)
    known = "an unknown number of" if num_classes is None else f"{num_classes}"
    raise InputError(
        f"the class of folder '{shown(odd, 60)}' cannot be told: there are {len(folders)} folders "
        f"for {known} classes, and the rank of a name is its class only where every class has its "
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
                f"picture '{shown(path, 100)}' has label {label}, which is outside the classes; "
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
    text = read_text(path, "the classes file")
    name = f"the classes file {shown(path, 100)}"
    if text.lstrip().startswith("{"):
        pairs = _json_pairs(text, name)
    else:
        pairs = _wordnet_pairs(text, name, num_classes) or _line_pairs(text, name)
    table = dict(pairs)
    if not table or len(table) != len(pairs):
        raise InputError(f"{name} is empty or gives a name twice")
    for folder, index in pairs:
        if index > LARGEST_CLASS:
            raise InputError(
                f"{name} maps '{shown(folder, 60)}' to {index}; expected a class in "
                f"0..{LARGEST_CLASS}"
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
            raise InputError(
                f"'{shown(names[label], 60)}' and '{shown(name, 60)}' are both mapped to class "
                f"{label}"
            )
        names[label] = name
    return names


def _from_file(used: Sequence[str], given: Mapping[str, int]) -> dict[str, int]:
    missing = [name for name in used if name not in given]
    if missing:
        raise InputError(
            f"the classes file has no line for {len(missing)} folders: [{some(missing)}]"
        )
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
        f"folder '{shown(largest, 60)}' is outside the classes 0..{last}; "
        "name the folders by class index from 0, or give a classes file"
    )


def _cure(folder: str) -> str:
    if _WORDNET.fullmatch(folder):
        return "ImageNet's own list of all ids, LOC_synset_mapping.txt, as the classes file"
    return "a classes file"


def _in_order(folders: Sequence[str]) -> bool:
    return sorted(folders, key=int) == list(folders)


def _json_pairs(text: str, name: str) -> list[tuple[str, int]]:
    pairs: list[tuple[str, int]] = parse_json(text, name, pairs=list)
    for folder, index in pairs:
        if type(index) is not int or index < 0:
            raise InputError(
                f"{name} maps '{shown(folder, 60)}' to {shown(repr(index), 60)}, not a class"
            )
    return pairs


def _wordnet_pairs(text: str, name: str, num_classes: int | None) -> list[tuple[str, int]]:
    lines = [line for line in text.split("\n") if line.strip()]
    matches = [_WORDNET_LINE.fullmatch(line) for line in lines]
    ids = sorted({match["id"] for match in matches if match is not None})
    if None in matches or not ids:
        return []
    if len(ids) != (len(lines) if num_classes is None else num_classes):
        raise InputError(
            f"{name} lists {len(ids)} different WordNet ids; an id's class is its rank among all, "
            f"so expected {num_classes or len(lines)}; or give each its index"
        )
    return [(wordnet_id, rank) for rank, wordnet_id in enumerate(ids)]


def _line_pairs(text: str, name: str) -> list[tuple[str, int]]:
    pairs = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        folder, index = _split(line)
        if not folder or not _INDEX.fullmatch(index):
            raise InputError(
                f"line {number} of {name} is '{shown(line, 60)}'; expected a name, then a tab, "
                "space or comma, then a class index"
            )
        pairs.append((folder, int(index)))
    return pairs


def _split(line: str) -> tuple[str, str]:
    """Return name and index of a line; in place of what is not there, nothing."""
    whole = line.rstrip()
    head = whole.rstrip("0123456789")
    return (head.rstrip("\t ,").strip(), whole[len(head) :]) if head[-1:] in _BETWEEN else ("", "")
