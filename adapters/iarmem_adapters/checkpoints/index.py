"""A model in several files, with an index that says which entry is in which."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from iarmem_plugin.errors import WeightsError
from iarmem_plugin.text import shown
from iarmem_plugin.untrusted import read_json

from .states import State

_SHARD = re.compile(r"(.*)-\d{5}-of-\d{5}(\.\w+)")


def is_index(path: Path) -> bool:
    """Tell whether a file is an index by its name, such as ``model.safetensors.index.json``."""
    return path.name.endswith(".json")


def shard_paths(path: Path) -> list[Path]:
    """Return the files that an index names, in the order of their names; none of another file.

    Raises:
        InputError: the index is not JSON.
        WeightsError: it names no files, or some outside its folder.
    """
    if not is_index(path):
        return []
    return [path.parent / name for name in sorted(set(_weight_map(path).values()))]


def read_shards(path: Path, read: Callable[[Path], object]) -> State:
    """Return all entries of a model in several files.

    Args:
        path: the index.
        read: returns the content of one of the files.

    Raises:
        InputError: the index is not JSON.
        WeightsError: a file is missing, or holds other entries than the index says.
    """
    where = _weight_map(path)
    found: State = {}
    for shard in shard_paths(path):
        if not shard.is_file():
            raise WeightsError(f"{path} names {shown(shard.name)}, which is not beside it: get it")
        named = [name for name, file in where.items() if file == shard.name]
        found |= _entries(read(shard), shard, named)
    return found


def check_not_a_shard(path: Path) -> None:
    """Refuse one of several files of a model, where their index lies beside it.

    Raises:
        WeightsError: the message names the index.
    """
    parts = _SHARD.fullmatch(path.name)
    index = None if parts is None else path.with_name(f"{parts[1]}{parts[2]}.index.json")
    if index is not None and index.is_file():
        raise WeightsError(f"{path} is one of a model's several files: name {index}")


def _weight_map(path: Path) -> dict[str, str]:
    content = read_json(path, "the index")
    found = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not found:
        raise WeightsError(f"{path} is not the index of a model in several files: no 'weight_map'")
    for name in found.values():
        if not isinstance(name, str) or name in ("", ".", "..") or re.search(r"[/\\\0]", name):
            raise WeightsError(
                f"{path} names {shown(repr(name), 80)}, which is not a file beside it; an index "
                "names files of its own folder"
            )
    return found


def _entries(content: object, shard: Path, named: list[str]) -> State:
    found = content if isinstance(content, dict) else {}
    differing = sorted(str(name) for name in found.keys() ^ set(named))
    if differing:
        raise WeightsError(
            f"{shard} does not hold what its index says, first in {shown(differing[0], 80)}: get "
            "the index and all its files from one place"
        )
    odd = [name for name in named if not isinstance(found[name], Tensor)]
    if odd:
        raise WeightsError(f"{shard} holds no tensor under {shown(odd[0], 80)}")
    return found
