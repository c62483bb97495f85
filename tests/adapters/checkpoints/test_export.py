"""Exported checkpoints in the official format: loaded strictly where the original was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file, save_file
from torch import Tensor

from iarmem_adapters.organisms import weight_files
from iarmem_plugin import plugins
from iarmem_plugin.errors import IarmemError
from iarmem_plugin.interfaces import Adapter, Condition
from iarmem_plugin.jobs.export.job import export
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.loading import load
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import ScaleWeights
from iarmem_plugin.testing.adapter import predicted

from .conftest import Family, State

HALVED = "scale-weights:factor=0.5"
WEIGHTS, TOKENIZER = Path("weights.pth"), Path("tokenizer.pth")


def some(blocks: int, neurons: int) -> xr.DataArray:
    chosen = np.random.default_rng(0).random((blocks, neurons)) < 0.2
    return xr.DataArray(chosen, dims=("block", "neuron"))


def rows_of(family: Family, states: tuple[State, State]) -> dict[str, Tensor]:
    """Return, by the name of the map into them, which rows `some` edits."""
    path = {"var": "blocks.{}.ffn.fc1.weight", "rar": "blocks.{}.mlp.fc1.weight"}[family.name]
    width = len(states[0][path.format(0)])
    chosen = some(2, width).to_numpy()
    return {path.format(block): torch.from_numpy(chosen[block]) for block in range(2)}


def exported(family: Family, weights: Path, out: str, states: tuple[State, State]) -> Path:
    width = len(next(iter(rows_of(family, states).values())))
    return export(
        family.released[0],
        out,
        neurons=some(2, width),
        intervention=HALVED,
        weights=weights,
        overwrite=True,
    )


def assert_edited(found: State, original: State, rows: dict[str, Tensor]) -> None:
    assert found.keys() == original.keys()
    for key, before in original.items():
        expected = before.clone()
        if key in rows:
            expected[rows[key]] *= 0.5
        assert found[key].dtype == before.dtype
        assert torch.equal(found[key], expected), key


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_only_the_edited_rows_differ_and_the_order_stays(
    family: Family, states: tuple[State, State], kind: torch.dtype, ending: str
) -> None:
    state = {
        key: one.to(kind) if one.is_floating_point() else one for key, one in states[0].items()
    }
    torch.save(state, WEIGHTS)
    out = exported(family, WEIGHTS, f"out.{ending}", states)
    read: Any = load_file if ending == "safetensors" else torch.load
    assert list(read(out)) == list(state)
    assert_edited(read(out), state, rows_of(family, states))


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_an_exported_model_predicts_what_the_edited_one_did(
    family: Family, states: tuple[State, State], ending: str
) -> None:
    torch.save(states[0], WEIGHTS)
    torch.save(states[1], TOKENIZER)
    model = ImageARModel(family.load())
    layout = model.layout
    tokens = torch.zeros(2, len(layout.predicting), dtype=torch.int64)
    told = Condition.of(torch.tensor([0, 1]))
    chosen = some(layout.num_blocks, layout.neurons_per_block)
    before = predicted(model.adapter, tokens, told)
    with intervene(model, chosen, ScaleWeights(0.5), backend="weights") as edited:
        expected = predicted(edited.adapter, tokens, told)
    out = exported(family, WEIGHTS, f"out.{ending}", states)
    found = predicted(family.load(out), tokens, told)
    assert torch.equal(found, expected)
    assert not torch.equal(found, before)


def test_the_nesting_of_a_training_checkpoint_stays(
    family: Family, states: tuple[State, State]
) -> None:
    state = {f"module.{key}": one for key, one in states[0].items()}
    nested = {
        "epoch": 3,
        "trainer": {"var_wo_ddp": state, "optimizer": {"state": [torch.ones(3)], "lr": 1e-4}},
    }
    torch.save(nested, WEIGHTS)
    out = exported(family, WEIGHTS, "out.pth", states)
    found = torch.load(out, weights_only=True)
    inner = found["trainer"].pop("var_wo_ddp")
    assert (found["epoch"], found["trainer"]["optimizer"]["lr"]) == (3, 1e-4)
    assert torch.equal(found["trainer"]["optimizer"]["state"][0], torch.ones(3))
    assert list(inner) == list(state)
    plain = {key.removeprefix("module."): one for key, one in inner.items()}
    assert_edited(plain, states[0], rows_of(family, states))
    torch.save(states[1], TOKENIZER)
    family.load(out)
    flat = load_file(exported(family, WEIGHTS, "out.safetensors", states))
    assert list(flat) == list(states[0])
    assert_edited(flat, states[0], rows_of(family, states))


def test_a_file_that_holds_an_averaged_model_beside_is_refused_as_when_it_is_loaded(
    family: Family, states: tuple[State, State]
) -> None:
    torch.save({"model": states[0], "ema": states[0]}, WEIGHTS)
    with pytest.raises(IarmemError, match="at model, ema"):
        exported(family, WEIGHTS, "out.pth", states)


def test_safetensors_and_several_files_are_exported_in_the_official_order(
    family: Family, states: tuple[State, State]
) -> None:
    names = list(states[0])
    save_file(states[0], "whole.safetensors")
    halves = (names[::2], names[1::2])
    for number, half in enumerate(halves, start=1):
        part = {name: states[0][name] for name in half}
        save_file(part, f"m-{number:05}-of-00002.safetensors")
    where = {
        name: f"m-{number:05}-of-00002.safetensors"
        for number, half in enumerate(halves, start=1)
        for name in half
    }
    Path("m.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    for file in ("whole.safetensors", "m.safetensors.index.json"):
        for ending, read in (("pth", torch.load), ("safetensors", load_file)):
            found = read(exported(family, Path(file), f"out.{ending}", states))
            assert list(found) == names
            assert_edited(found, states[0], rows_of(family, states))


def test_memory_that_two_entries_share_is_refused(
    family: Family, states: tuple[State, State]
) -> None:
    first, second = rows_of(family, states)
    torch.save({**states[0], second: states[0][first][:]}, WEIGHTS)
    with pytest.raises(IarmemError, match="as if it shared its memory"):
        exported(family, WEIGHTS, "out.pth", states)


def test_another_size_than_that_of_the_model_is_refused(
    family: Family, states: tuple[State, State]
) -> None:
    torch.save(states[0], WEIGHTS)
    how: dict[str, Any] = {"neurons": some(2, 3), "intervention": HALVED, "weights": WEIGHTS}
    with pytest.raises(IarmemError, match=f"name the model {family.released[0]}"):
        export(family.released[1], "out.pth", **how)
    with pytest.raises(IarmemError, match="needs --weights"):
        export(family.released[0], "out.pth", **how | {"weights": None})


@pytest.mark.parametrize("name", ["var-organism", "rar-organism"])
def test_an_organism_is_exported_and_loaded_by_its_familys_name(name: str, tmp_path: Path) -> None:
    variant, family = plugins.find_variant(name)[1], name.partition("-")[0]
    chosen = some(variant.blocks, variant.neurons)
    stored, tokenizer = weight_files(family)
    for ending in ("pth", "safetensors"):
        out = tmp_path / f"out.{ending}"
        export(name, out, neurons=chosen, intervention=HALVED)
        assert f"is loaded by the name `{family}`" in (tmp_path / "out.md").read_text()
        mitigated: Adapter = load(family, out, tokenizer, dtype="float16").adapter
        original = load(name, dtype="float16")
        with intervene(original, chosen, ScaleWeights(0.5), backend="weights") as edited:
            expected = edited.adapter.network.state_dict()
            found = mitigated.network.state_dict()
            assert list(found) == list(expected)
            assert [key for key in found if not torch.equal(found[key], expected[key])] == []
        for one in tmp_path.iterdir():
            one.unlink()
    export(name, out, neurons=chosen, intervention=HALVED, weights=stored)
    again = load(name, out, dtype="float16").adapter.network.state_dict()  # as its organism, too
    assert [key for key in again if not torch.equal(again[key], found[key])] == []
