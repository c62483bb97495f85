"""Weight files of both families: what loads, and what is refused in which words."""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import xarray as xr
from safetensors.torch import save_file
from torch import Tensor, nn

import iarmem_plugin as iarmem
from iarmem_adapters.rar import loading as rar_loading
from iarmem_adapters.rar.tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from iarmem_adapters.rar.transformer import RARConfig, RARTransformer
from iarmem_adapters.var import loading as var_loading
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_plugin import plugins
from iarmem_plugin.errors import InputError, WeightsError
from iarmem_plugin.interfaces import Adapter
from iarmem_plugin.models.provenance import model_provenance
from iarmem_plugin.models.tracing import ImageARModel, intervene
from iarmem_plugin.neurons.interventions import ScaleWeights

VAR_SIZES = (
    VARConfig(2, 32, 2, (1, 2), num_classes=3, vocab_size=8, code_width=4),
    VQVAEConfig((1, 2), ch=8, ch_mult=(1, 2), res_blocks=1, vocab_size=8, code_width=4),
)
RAR_SIZES = (
    RARConfig(2, 32, 2, 48, num_tokens=4, vocab_size=16, num_classes=5),
    MaskGITVQGANConfig(ch=8, ch_mult=(1, 2), res_blocks=1, vocab_size=16, code_width=6),
)
VAR_LARGER = VARConfig(3, 32, 4, (1, 2), num_classes=3, vocab_size=8, code_width=4)
RAR_LARGER = RARConfig(3, 32, 4, 48, num_tokens=4, vocab_size=16, num_classes=5)
State = dict[str, Tensor]


@dataclass(frozen=True)
class Family:
    """A family at tiny size; its first two released names stand for tiny models, too."""

    name: str
    released: tuple[str, str]
    loading: ModuleType
    build: tuple[Callable[[Any], nn.Module], Callable[[Any], nn.Module]]
    sizes: tuple[Any, Any]
    larger: Any


FAMILIES = {
    "var": Family(
        "var",
        ("var-d16", "var-d20"),
        var_loading,
        (VARTransformer, MultiScaleVQVAE),
        VAR_SIZES,
        VAR_LARGER,
    ),
    "rar": Family(
        "rar",
        ("rar-b", "rar-l"),
        rar_loading,
        (RARTransformer, MaskGITVQGAN),
        RAR_SIZES,
        RAR_LARGER,
    ),
}


@pytest.fixture(params=FAMILIES)
def family(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Family:
    found = FAMILIES[request.param]
    sizes = dict.fromkeys(found.loading.SIZES, found.sizes)
    sizes[found.released[1]] = (found.larger, found.sizes[1])
    known = found.loading.configs
    monkeypatch.setattr(found.loading, "configs", lambda name: sizes.get(name) or known(name))
    monkeypatch.chdir(tmp_path)
    return found


@pytest.fixture
def states(family: Family, fill: ModuleType) -> tuple[State, State]:
    """The entries of a transformer and of its tokenizer."""
    modules = [build(sizes) for build, sizes in zip(family.build, family.sizes, strict=True)]
    first, second = (fill.fill_state_dict(module).state_dict() for module in modules)
    return dict(first), dict(second)


@pytest.fixture
def files(states: tuple[State, State]) -> tuple[Path, Path]:
    paths = (Path("weights.pth"), Path("tokenizer.pth"))
    for state, path in zip(states, paths, strict=True):
        torch.save(state, path)
    return paths


def load(
    family: Family,
    weights: Path | None = Path("weights.pth"),
    tokenizer: Path | None = Path("tokenizer.pth"),
    *,
    name: str | None = None,
    **options: Any,
) -> Adapter:
    known = {"device": "cpu", "dtype": torch.float32} | options
    adapter = plugins.find("adapter", family.name)
    name = family.released[0] if name is None else name
    return adapter.load(name, weights=weights, tokenizer=tokenizer, **known)


def refusal(family: Family, *files: Path, name: str | None = None) -> str:
    with pytest.raises(WeightsError) as caught:
        load(family, *files, name=name)
    return " ".join(str(caught.value).split())


def equal(module: nn.Module, state: State) -> bool:
    loaded = module.state_dict()
    return loaded.keys() == state.keys() and all(
        torch.equal(loaded[key], state[key]) for key in state
    )


# what loads


@pytest.mark.parametrize(
    ("save", "suffix"),
    [(torch.save, ".pth"), (torch.save, ".bin"), (save_file, ".safetensors"), (save_file, ".bin")],
)
def test_every_entry_is_the_files(
    family: Family, files: tuple[Path, Path], states: tuple[State, State], save: Any, suffix: str
) -> None:
    path = Path(f"file{suffix}")
    save(states[0], path)
    adapter = load(family, path)
    assert equal(adapter.network, states[0])
    assert equal(adapter.tokenizer, states[1])
    assert not adapter.network.training
    assert not adapter.tokenizer.training


def test_a_file_under_the_other_formats_name_is_to_be_renamed(
    family: Family, files: tuple[Path, Path]
) -> None:
    files[0].rename("weights.safetensors")
    assert refusal(family, Path("weights.safetensors")).endswith("rename it to .pth")


def test_a_file_of_an_old_torch_loads(
    family: Family, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    torch.save(states[0], files[0], _use_new_zipfile_serialization=False)
    assert equal(load(family).network, states[0])


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_half_precision_files_load_in_any_precision(
    family: Family, files: tuple[Path, Path], states: tuple[State, State], stored: torch.dtype
) -> None:
    half = {k: v.to(stored) if v.is_floating_point() else v for k, v in states[0].items()}
    torch.save(half, files[0])
    for dtype in (torch.float32, torch.bfloat16):
        adapter = load(family, dtype=dtype)
        expected = {k: v.to(dtype) if v.is_floating_point() else v for k, v in half.items()}
        assert equal(adapter.network, expected)
        assert {entry.dtype for entry in adapter.tokenizer.parameters()} == {torch.float32}


def test_weights_stored_with_channels_last_are_laid_out_as_usual(
    family: Family, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    stored = {
        key: value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
        for key, value in states[1].items()
    }
    torch.save(stored, files[1])
    assert all(entry.is_contiguous() for entry in load(family).tokenizer.parameters())


@pytest.mark.parametrize("save", [torch.save, save_file])
def test_an_edit_of_the_weights_never_reaches_the_file(
    family: Family, files: tuple[Path, Path], states: tuple[State, State], save: Any
) -> None:
    save(states[0], files[0])
    before = files[0].read_bytes()
    with torch.serialization.set_default_mmap_options(1):  # MAP_SHARED, the user's own setting
        model = ImageARModel(load(family))
    chosen = {"block": 2, "neuron": model.layout.neurons_per_block}
    neurons = torch.ones(tuple(chosen.values()), dtype=torch.bool).numpy()
    edited = xr.DataArray(neurons, dims=tuple(chosen))
    with intervene(model, edited, ScaleWeights(0.5), backend="weights"):
        fc1 = model.adapter.network.get_submodule(model.layout.fc1.format(block=0))
        key = f"{model.layout.fc1.format(block=0)}.weight"
        assert torch.equal(fc1.weight, states[0][key] / 2)
    with torch.no_grad():
        next(model.adapter.network.parameters()).zero_()
    assert files[0].read_bytes() == before


def test_a_training_checkpoint_gives_its_weights_and_says_from_where(
    family: Family, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    trainer = {"var_wo_ddp": states[0], "vae_local": states[1], "optimizer": optimizer}
    torch.save({"epoch": 3, "trainer": trainer}, files[0])
    adapter = load(family, files[0], files[0])
    assert equal(adapter.network, states[0])
    assert equal(adapter.tokenizer, states[1])
    assert adapter.files["transformer"]["place"] == "trainer.var_wo_ddp"


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_weights_saved_from_inside_a_wrapper_load(
    family: Family, files: tuple[Path, Path], states: tuple[State, State], wrapper: str
) -> None:
    torch.save({"model": {f"{wrapper}{key}": one for key, one in states[0].items()}}, files[0])
    adapter = load(family)
    assert equal(adapter.network, states[0])
    assert adapter.files["transformer"]["place"] == f"model.{wrapper}".removesuffix(".")


# other sizes


def test_weights_of_any_size_load_by_the_familys_name(
    family: Family, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    adapter: Any = load(family, name=family.name)
    assert (adapter.network.config, adapter.tokenizer.config) == family.sizes
    assert equal(adapter.network, states[0])
    variant, sizes = adapter.variant, family.sizes[0]
    assert (variant.name, variant.family) == (f"{family.name}-2x32", family.name)
    assert (variant.blocks, variant.num_classes) == (sizes.depth, sizes.num_classes)
    parameters = list(adapter.network.parameters())
    assert variant.parameters == sum(entry.numel() for entry in parameters)
    assert variant.resolution == 4  # 2x2 tokens at the finest, each 2x2 pixels


def test_sizes_can_be_given_and_are_then_checked(
    family: Family, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    arguments = (family.name, *files, "cpu", torch.float32)
    adapter = family.loading.load(*arguments, sizes=family.sizes)
    assert equal(adapter.network, states[0])
    with pytest.raises(WeightsError, match="depth 2 instead of 3, heads 2 instead of 4"):
        family.loading.load(*arguments, sizes=(family.larger, family.sizes[1]))


def test_the_sizes_of_a_var_with_shared_adaptive_norms_and_other_scales_are_found(
    fill: ModuleType, tmp_path: Path
) -> None:
    sizes = VARConfig(1, 24, 3, (1, 3, 4), 7, 12, 5, shared_adaln=True)
    codes = VQVAEConfig((1, 2), ch=32, ch_mult=(1, 1, 3), vocab_size=12, code_width=5)
    network, tokenizer = VARTransformer(sizes), MultiScaleVQVAE(codes)
    for module, name in ((network, "weights.pth"), (tokenizer, "tokenizer.pth")):
        torch.save(fill.fill_state_dict(module).state_dict(), tmp_path / name)
    paths = (tmp_path / "weights.pth", tmp_path / "tokenizer.pth")
    adapter = var_loading.load("var", *paths, "cpu", torch.float32)
    assert adapter.network.config == sizes
    # the tokenizer's file does not tell its scales: they are the transformer's
    assert adapter.tokenizer.config == VQVAEConfig(
        (1, 3, 4), ch=32, ch_mult=(1, 1, 3), vocab_size=12, code_width=5
    )
    assert adapter.variant.resolution == 16


# what is refused


def test_weights_of_another_released_size_are_named(
    family: Family, files: tuple[Path, Path]
) -> None:
    torch.save(family.build[0](family.larger).state_dict(), files[0])
    asked, other = family.released
    assert refusal(family) == (
        f"weights.pth holds the weights of {other}, and {asked} was asked for: "
        f"name the model {other}"
    )


def test_weights_of_no_released_size_are_described(
    family: Family, files: tuple[Path, Path]
) -> None:
    sizes = {"var": VARConfig(4, 32, 2, (1, 2), 9, 8, 4), "rar": RARConfig(4, 32, 2, 48, 4, 16, 9)}
    torch.save(family.build[0](sizes[family.name]).state_dict(), files[0])
    told = refusal(family)
    assert f"is not {family.released[0]}, nor of any released size: depth 4 instead of 2" in told
    assert told.endswith(f"to load it as it is, name the model {family.name!r}")


def test_the_other_familys_files_are_recognised(family: Family, files: tuple[Path, Path]) -> None:
    other = FAMILIES["rar" if family.name == "var" else "var"]
    theirs = [Path("theirs-0.pth"), Path("theirs-1.pth")]
    for build, sizes, path in zip(other.build, other.sizes, theirs, strict=True):
        torch.save(build(sizes).state_dict(), path)
    this, that = family.name.upper(), other.name.upper()
    assert refusal(family, theirs[0]) == (
        f"theirs-0.pth holds no {this} transformer: these are the weights of a {that} "
        f"transformer; name a {that} model, or give the {this} transformer's file"
    )
    told = refusal(family, files[0], theirs[1])
    assert f"holds no {this} tokenizer: these are the weights of a {that} tokenizer" in told


def test_swapped_files_are_noticed(family: Family, files: tuple[Path, Path]) -> None:
    told = refusal(family, files[1], files[0])
    this = family.name.upper()
    assert f"these are the weights of a {this} tokenizer; name them with --tokenizer" in told
    told = refusal(family, files[0], files[0])
    assert f"holds no {this} tokenizer: these are the weights of a {this} transformer" in told


def test_a_tokenizer_of_other_codes_is_refused(
    family: Family, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    codes = states[1] | {"quantize.embedding.weight": torch.zeros(32, 4)}
    torch.save(codes, files[1])
    wanted = family.sizes[0].vocab_size
    for name in (family.released[0], family.name):
        told = refusal(family, name=name)
        assert f"is not the tokenizer of {name}: it has vocab_size 32 instead of {wanted}" in told


def test_missing_entries_are_named_up_to_five(
    family: Family, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    gone = [key for key in states[0] if key.startswith("blocks.1.attn.")]
    torch.save({key: value for key, value in states[0].items() if key not in gone}, files[0])
    for name in (family.released[0], family.name):
        named = f"weights.pth is not {name}: it lacks {', '.join(gone[:5])}"
        assert refusal(family, name=name) == f"{named} and {len(gone) - 5} more"


def test_an_entry_that_tells_the_size_may_be_the_missing_one(
    family: Family, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    gone = {"var": "pos_1LC", "rar": "lm_head.weight"}[family.name]
    del states[0][gone]
    torch.save(states[0], files[0])
    assert refusal(family).endswith(f"is not {family.released[0]}: it lacks {gone}")


def test_extra_entries_are_named(
    family: Family, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    torch.save(states[0] | {"control.weight": torch.zeros(1)}, files[0])
    assert refusal(family).endswith(f"is not {family.released[0]}: it has unknown control.weight")


def test_entries_of_other_sizes_are_named(
    family: Family, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    key = next(key for key in states[0] if key.endswith("0.attn.proj.weight"))
    torch.save(states[0] | {key: torch.zeros(7, 32)}, files[0])
    assert refusal(family).endswith(f"it has other sizes: {key} (7, 32) instead of (32, 32)")


def test_quantised_entries_are_refused(
    family: Family, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    key = next(key for key in states[0] if key.endswith("0.attn.proj.weight"))
    torch.save(states[0] | {key: torch.zeros(32, 32, dtype=torch.int8)}, files[0])
    assert f"as if it were quantised: {key} (torch.int8)" in refusal(family)
    torch.save(states[0] | {key: states[0][key].to(torch.float8_e4m3fn)}, files[0])
    assert f"as if it were quantised: {key} (torch.float8_e4m3fn)" in refusal(family)


def test_entries_without_plain_numbers_are_refused(
    family: Family, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    key = next(key for key in states[0] if key.endswith("0.attn.proj.weight"))
    for odd in (states[0][key].to_sparse(), states[0][key].to("meta")):
        torch.save(states[0] | {key: odd}, files[0])
        assert f"being sparse or without values, in {key}" in refusal(family)


def test_shapes_that_no_model_has_are_refused(
    family: Family, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    key, value, problem = {
        "var": ("lvl_1L", torch.tensor([[0, 1, 1, 1]]), "no squares"),
        "rar": ("embeddings.weight", torch.zeros(3, 32), "classes"),
    }[family.name]
    torch.save(states[0] | {key: value}, files[0])
    assert problem in refusal(family, name=family.name)
    torch.save(states[0] | {key: torch.zeros(())}, files[0])
    refusal(family, name=family.name)
    key = {"var": "pos_1LC", "rar": "cls_token"}[family.name]
    torch.save(states[0] | {key: states[0][key].flatten()}, files[0])
    assert "an entry has too few dimensions" in refusal(family, name=family.name)


def test_a_file_of_other_things_says_what_it_holds(
    family: Family, files: tuple[Path, Path]
) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, files[0])
    assert refusal(family).endswith("but conv1.weight")
    torch.save({"epoch": 3}, files[0])
    assert refusal(family).endswith("it holds no tensors at all")
    torch.save(torch.zeros(3), files[0])
    assert refusal(family).endswith("it holds no tensors at all")


def test_several_copies_of_the_weights_are_not_chosen_among(
    family: Family, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    torch.save({"model": states[0], "ema": states[0]}, files[0])
    told = refusal(family)
    assert f"holds 2 of a {family.name.upper()} transformer, at model, ema: save the one" in told
    assert "torch.load('weights.pth', weights_only=True)['model']" in told


class Runs:
    """A pickle that would make a folder."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pickle-ran",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(
    family: Family, files: tuple[Path, Path], zipped: bool
) -> None:
    for path in files:
        good = path.read_bytes()
        torch.save({"head.bias": Runs()}, path, _use_new_zipfile_serialization=zipped)
        told = refusal(family)
        assert f"{path} is no readable weight file: it holds objects other than tensors" in told
        assert "mkdir" in told
        path.write_bytes(good)
    assert not Path("pickle-ran").exists()


def test_a_bare_pickle_is_refused_and_not_run(family: Family, files: tuple[Path, Path]) -> None:
    files[0].write_bytes(pickle.dumps({"head.bias": Runs()}))
    assert "a pickle that torch.save did not write; it was not run" in refusal(family)
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
    family: Family, files: tuple[Path, Path], name: str, content: bytes, what: str
) -> None:
    Path(name).write_bytes(content)
    assert what in refusal(family, Path(name))
    assert what in refusal(family, files[0], Path(name))


@pytest.mark.parametrize("save", [torch.save, save_file])
@pytest.mark.parametrize("left", [0.05, 0.5, 0.99])
def test_a_truncated_file_is_said_to_have_broken_off(
    family: Family, files: tuple[Path, Path], states: tuple[State, State], save: Any, left: float
) -> None:
    save(states[0], files[0])
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: int(len(whole) * left)])
    assert "broken off: fetch it again" in refusal(family)


def test_an_old_file_that_is_truncated_is_said_to_have_broken_off(
    family: Family, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    torch.save(states[0], files[0], _use_new_zipfile_serialization=False)
    whole = files[0].read_bytes()
    for left in (30, len(whole) // 2, len(whole) - 9):
        files[0].write_bytes(whole[:left])
        assert "broken off: fetch it again" in refusal(family)


def test_torchscript_is_refused(family: Family, files: tuple[Path, Path]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # files of it are still about
        torch.jit.script(nn.Identity()).save(str(files[0]))
    assert "TorchScript" in refusal(family)


def test_a_folder_is_no_file(family: Family, files: tuple[Path, Path]) -> None:
    Path("folder").mkdir()
    with pytest.raises(InputError, match="folder is a folder: name the file in it"):
        load(family, Path("folder"))
    with pytest.raises(InputError, match=r"nowhere\.pth does not exist"):
        load(family, files[0], Path("nowhere.pth"))


# provenance


def test_the_files_are_identified_by_name_length_and_sha256(
    family: Family, files: tuple[Path, Path]
) -> None:
    found = model_provenance(ImageARModel(load(family)))["files"]
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
    family: Family, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    save_file(states[0], "weights.safetensors")
    first = model_provenance(ImageARModel(load(family)))
    second = model_provenance(ImageARModel(load(family, Path("weights.safetensors"))))
    assert first["weights_sha256"] == second["weights_sha256"]
    assert first["files"]["transformer"]["sha256"] != second["files"]["transformer"]["sha256"]


def test_a_bundled_organism_says_its_files_too() -> None:
    found = iarmem.load("var-organism").adapter.files
    assert sorted(found) == ["tokenizer", "transformer"]
