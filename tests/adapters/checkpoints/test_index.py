"""A model in several files is loaded by its index, which names files of its own folder only."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from iarmem_plugin.errors import InputError

State = dict[str, Tensor]
INDEX = Path("model.safetensors.index.json")


def write_index(names: dict[str, str], path: Path = INDEX) -> None:
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": names}))


def shard(state: State, save: Any = save_file, suffix: str = ".safetensors") -> dict[str, str]:
    """Write two files of a state dict; return which entry is in which."""
    names = list(state)
    where = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05}-of-00002{suffix}"
        save({name: state[name] for name in part}, file)
        where |= dict.fromkeys(part, file)
    return where


def test_both_shards_are_loaded_and_identified(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    write_index(shard(states[0]))
    adapter = family.load(INDEX)
    assert family.equal(adapter.network, states[0])
    whole = b"".join(path.read_bytes() for path in (INDEX, *sorted(Path().glob("model-*"))))
    facts = adapter.files["transformer"]
    assert facts["name"] == INDEX.name
    assert facts["bytes"] == len(whole)
    assert facts["sha256"] == hashlib.sha256(whole).hexdigest()


def test_shards_of_torch_save_are_loaded(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    path = Path("pytorch_model.bin.index.json")
    write_index(shard(states[0], torch.save, ".bin"), path)
    assert family.equal(family.load(path).network, states[0])


def test_one_of_several_files_is_refused_with_the_name_of_their_index(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    write_index(shard(states[0]))
    told = family.refusal(Path("model-00002-of-00002.safetensors"))
    assert told.endswith(f"is one of a model's several files: name {INDEX}")


@pytest.mark.parametrize("name", ["../out.safetensors", "/etc/passwd", "..", "a\\b", "", "a\0b"])
def test_names_that_lead_outside_are_refused(
    family: Any, files: tuple[Path, Path], states: tuple[State, State], name: str
) -> None:
    save_file(states[0], "../out.safetensors")
    write_index(dict.fromkeys(states[0], name))
    assert "is not a file beside it; an index names files of its own" in family.refusal(INDEX)


def test_an_index_that_does_not_fit_its_files_is_refused(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    where = shard(states[0])
    first = next(iter(where))
    write_index({name: file for name, file in where.items() if name != first})
    assert f"does not hold what its index says, first in {first}" in family.refusal(INDEX)
    write_index(where | {"more": where[first]})
    assert "does not hold what its index says, first in more" in family.refusal(INDEX)
    write_index(where | {"more": "model-00003-of-00003.safetensors"})
    assert "model-00003-of-00003.safetensors, which is not beside it" in family.refusal(INDEX)
    write_index(dict.fromkeys(where, INDEX.name))
    assert "neither a file of torch.save nor of safetensors" in family.refusal(INDEX)


@pytest.mark.parametrize("content", ["[]", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "{}"])
def test_other_json_is_no_index(family: Any, files: tuple[Path, Path], content: str) -> None:
    INDEX.write_text(content)
    told = family.refusal(INDEX)
    assert "is not the index of a model" in told or "is not a file beside it" in told


def test_what_is_no_json_is_refused(family: Any, files: tuple[Path, Path]) -> None:
    INDEX.write_text("[" * 100_000)
    with pytest.raises(InputError, match="nested more than 100 deep"):
        family.load(INDEX)
