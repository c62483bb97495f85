"""Weight files of both families: what is read, and what is refused in which words."""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
from safetensors.torch import save_file
from torch import Tensor, nn

import iarmem_plugin as iarmem
from iarmem_plugin.errors import InputError
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.provenance import model_provenance
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import ScaleWeights

State = dict[str, Tensor]


@pytest.mark.parametrize(
    ("save", "suffix"),
    [(torch.save, ".pth"), (torch.save, ".bin"), (save_file, ".safetensors"), (save_file, ".bin")],
)
def test_every_entry_is_the_files(
    family: Any, files: tuple[Path, Path], states: tuple[State, State], save: Any, suffix: str
) -> None:
    path = Path(f"file{suffix}")
    save(states[0], path)
    adapter = family.load(path)
    assert family.equal(adapter.network, states[0])
    assert family.equal(adapter.tokenizer, states[1])
    assert not adapter.network.training
    assert not adapter.tokenizer.training


def test_a_file_under_the_other_formats_name_is_to_be_renamed(
    family: Any, files: tuple[Path, Path]
) -> None:
    files[0].rename("weights.safetensors")
    assert family.refusal(Path("weights.safetensors")).endswith("rename it to .pth")


def test_a_file_of_an_old_torch_loads(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    torch.save(states[0], files[0], _use_new_zipfile_serialization=False)
    assert family.equal(family.load().network, states[0])


@pytest.mark.parametrize("save", [torch.save, save_file])
def test_an_edit_of_the_weights_never_reaches_the_file(
    family: Any, files: tuple[Path, Path], states: tuple[State, State], save: Any
) -> None:
    save(states[0], files[0])
    before = files[0].read_bytes()
    with torch.serialization.set_default_mmap_options(1):  # MAP_SHARED, the user's own setting
        model = ImageARModel(family.load())
    chosen = {"block": 2, "neuron": model.layout.neurons_per_block}
    neurons = torch.ones(tuple(chosen.values()), dtype=torch.bool).numpy()
    edited = xr.DataArray(neurons, dims=tuple(chosen))
    with intervene(model, edited, ScaleWeights(0.5), backend="weights"):
        path = model.layout.mlp.first_read.format(block=0)
        fc1, key = model.adapter.network.get_submodule(path), f"{path}.weight"
        assert torch.equal(fc1.weight, states[0][key] / 2)
    with torch.no_grad():
        next(model.adapter.network.parameters()).zero_()
    assert files[0].read_bytes() == before


def test_a_training_checkpoint_gives_its_weights_and_says_from_where(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    trainer = {"var_wo_ddp": states[0], "vae_local": states[1], "optimizer": optimizer}
    torch.save({"epoch": 3, "trainer": trainer}, files[0])
    adapter = family.load(files[0], files[0])
    assert family.equal(adapter.network, states[0])
    assert family.equal(adapter.tokenizer, states[1])
    assert adapter.files["transformer"]["place"] == "trainer.var_wo_ddp"


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_weights_saved_from_inside_a_wrapper_load(
    family: Any, files: tuple[Path, Path], states: tuple[State, State], wrapper: str
) -> None:
    torch.save({"model": {f"{wrapper}{key}": one for key, one in states[0].items()}}, files[0])
    adapter = family.load()
    assert family.equal(adapter.network, states[0])
    assert adapter.files["transformer"]["place"] == f"model.{wrapper}".removesuffix(".")


class Runs:
    """A pickle that would make a folder."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pickle-ran",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(
    family: Any, files: tuple[Path, Path], zipped: bool
) -> None:
    for path in files:
        good = path.read_bytes()
        torch.save({"head.bias": Runs()}, path, _use_new_zipfile_serialization=zipped)
        told = family.refusal()
        assert f"{path} is not a readable weight file: it holds objects other than tensors" in told
        assert "mkdir" in told
        path.write_bytes(good)
    assert not Path("pickle-ran").exists()


def test_a_bare_pickle_is_refused_and_not_run(family: Any, files: tuple[Path, Path]) -> None:
    files[0].write_bytes(pickle.dumps({"head.bias": Runs()}))
    assert "a pickle that torch.save did not write; it was not run" in family.refusal()
    assert not Path("pickle-ran").exists()


@pytest.mark.parametrize("name", ["other.pth", "other.safetensors"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it is empty: fetch it again"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "it is a web page that was saved in place"),
        (b"\xef\xbb\xbf<!-- moved --><html>", "it is a web page that was saved in place"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "it is a pointer of git-lfs"),
        (b"\x89PNG\r\n\x1a\n" + bytes(32), "neither a file of torch.save nor of safetensors"),
        (b"PK\x03\x04" + bytes(100), "it is the beginning of a file"),
    ],
)
def test_files_of_something_else_are_told_apart(
    family: Any, files: tuple[Path, Path], name: str, content: bytes, what: str
) -> None:
    Path(name).write_bytes(content)
    assert what in family.refusal(Path(name))
    assert what in family.refusal(files[0], Path(name))


@pytest.mark.parametrize("save", [torch.save, save_file])
@pytest.mark.parametrize("left", [0.05, 0.5, 0.99])
def test_a_truncated_file_is_said_to_have_broken_off(
    family: Any, files: tuple[Path, Path], states: tuple[State, State], save: Any, left: float
) -> None:
    save(states[0], files[0])
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: int(len(whole) * left)])
    assert "broken off: fetch it again" in family.refusal()


def test_an_old_file_that_is_truncated_is_said_to_have_broken_off(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    torch.save(states[0], files[0], _use_new_zipfile_serialization=False)
    whole = files[0].read_bytes()
    for left in (30, len(whole) // 2, len(whole) - 9):
        files[0].write_bytes(whole[:left])
        assert "broken off: fetch it again" in family.refusal()


def test_torchscript_is_refused(family: Any, files: tuple[Path, Path]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # files of it are still about
        torch.jit.script(nn.Identity()).save(str(files[0]))
    assert "TorchScript" in family.refusal()


def test_a_folder_is_no_file(family: Any, files: tuple[Path, Path]) -> None:
    Path("folder").mkdir()
    with pytest.raises(InputError, match="is a folder: 'folder'; name a weight file"):
        family.load(Path("folder"))
    with pytest.raises(InputError, match=r"no such file: 'nowhere\.pth'"):
        family.load(files[0], Path("nowhere.pth"))


def test_the_files_are_identified_by_name_length_and_sha256(
    family: Any, files: tuple[Path, Path]
) -> None:
    found = model_provenance(ImageARModel(family.load()))["files"]
    expected = {
        role: {
            "name": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for role, path in zip(("transformer", "tokenizer"), files, strict=True)
    }
    assert expected == found


def test_the_same_weights_in_another_format_are_the_same_weights(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    save_file(states[0], "weights.safetensors")
    first = model_provenance(ImageARModel(family.load()))
    second = model_provenance(ImageARModel(family.load(Path("weights.safetensors"))))
    assert first["weights_sha256"] == second["weights_sha256"]
    assert first["files"]["transformer"]["sha256"] != second["files"]["transformer"]["sha256"]


def test_a_bundled_organism_says_its_files_too() -> None:
    found = iarmem.load("var-organism").adapter.files
    assert sorted(found) == ["tokenizer", "transformer"]
