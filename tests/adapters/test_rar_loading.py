from __future__ import annotations

import pickle
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from iarmem_adapters.rar import RARAdapter, loading
from iarmem_adapters.rar.tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from iarmem_adapters.rar.transformer import RARTransformer
from iarmem_adapters.rar.variants import Sizes
from iarmem_adapters.weights import read_weights
from iarmem_plugin.errors import InputError, WeightsError

TOKENIZER = MaskGITVQGANConfig(ch=8, res_blocks=1)


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `rar-b` be small, and its tokenizer, as long as a test runs."""
    monkeypatch.setattr(loading, "SIZES", {"rar-b": Sizes(2, 32, 64, 0, 4.0, 1.0, heads=2)})
    monkeypatch.setattr(loading, "MaskGITVQGANConfig", lambda: TOKENIZER)


@pytest.fixture
def states(fill: ModuleType) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The entries of a transformer and of its tokenizer."""
    network = fill.fill_state_dict(RARTransformer(loading.config("rar-b")))
    tokenizer = fill.fill_state_dict(MaskGITVQGAN(TOKENIZER))
    return network.state_dict(), tokenizer.state_dict()


@pytest.fixture
def files(tmp_path: Path, states: tuple[dict[str, Tensor], ...]) -> tuple[Path, Path]:
    paths = (tmp_path / "rar_b.bin", tmp_path / "tokenizer.bin")
    for state, path in zip(states, paths, strict=True):
        torch.save(state, path)
    return paths


def load(weights: Path | None, tokenizer: Path | None, **options: torch.dtype) -> RARAdapter:
    dtype = options.get("dtype", torch.float32)
    return RARAdapter.load("rar-b", weights=weights, tokenizer=tokenizer, device="cpu", dtype=dtype)


def test_every_entry_is_the_files(
    files: tuple[Path, Path], states: tuple[dict[str, Tensor], ...]
) -> None:
    adapter = load(*files)
    for module, state in zip((adapter.network, adapter.tokenizer), states, strict=True):
        assert not module.training
        loaded = module.state_dict()
        assert loaded.keys() == state.keys()
        assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_safetensors_load_too(
    tmp_path: Path, files: tuple[Path, Path], states: tuple[dict[str, Tensor], ...]
) -> None:
    path = tmp_path / "rar_b.safetensors"
    save_file(states[0], path)
    loaded = load(path, files[1]).network.state_dict()
    assert all(torch.equal(loaded[key], states[0][key]) for key in loaded)


def test_files_in_half_precision_are_computed_with_in_the_precision_asked_for(
    tmp_path: Path, files: tuple[Path, Path], states: tuple[dict[str, Tensor], ...]
) -> None:
    path = tmp_path / "half.bin"
    torch.save({key: value.half() for key, value in states[0].items()}, path)
    assert {p.dtype for p in load(path, files[1]).network.parameters()} == {torch.float32}
    adapter = load(path, files[1], dtype=torch.bfloat16)
    assert {p.dtype for p in adapter.network.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in adapter.tokenizer.parameters()} == {torch.float32}


def test_a_file_that_is_not_named_is_asked_for(files: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match=r"needs --weights: download rar_b.bin and maskgit"):
        load(None, files[1])
    with pytest.raises(InputError, match=r"needs --tokenizer: .* from yucornetto/RAR"):
        load(files[0], None)


def test_a_file_that_is_not_there_is_named(files: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match=r"there is no weight file .*nowhere\.bin"):
        load(files[0].with_name("nowhere.bin"), files[1])


def test_missing_extra_and_other_entries_are_named(
    files: tuple[Path, Path], states: tuple[dict[str, Tensor], ...]
) -> None:
    whole = states[0]
    fewer = {key: value for key, value in whole.items() if not key.startswith("lm_head")}
    other = whole | {"cls_token": torch.zeros(1, 1, 48)}
    for state, message in (
        (fewer, "is not rar-b: it lacks lm_head.weight, lm_head.bias$"),
        (whole | {"more": torch.zeros(1)}, "is not rar-b: it has unknown more$"),
        (other, r"has other sizes: cls_token \(1, 1, 48\) instead of \(1, 1, 32\)$"),
    ):
        torch.save(state, files[0])
        with pytest.raises(WeightsError, match=message):
            load(*files)


def test_many_keys_are_named_up_to_five(files: tuple[Path, Path]) -> None:
    with pytest.raises(WeightsError, match=r"is not the tokenizer of rar-b: it lacks .* and \d+ "):
        load(files[0], files[0])


class Dangerous:
    """Would create a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "weights.bin", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"cls_token": Dangerous(trace)}))
    with pytest.raises(WeightsError, match="is not a readable weight file"):
        read_weights(path)
    torch.save({"cls_token": Dangerous(trace)}, path)
    with pytest.raises(WeightsError, match="is not a readable weight file"):
        read_weights(path)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["weights.bin", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>not found</html>"])
def test_files_of_another_kind_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="is not a readable weight file"):
        read_weights(path)


def test_a_truncated_file_is_refused(files: tuple[Path, Path]) -> None:
    files[0].write_bytes(files[0].read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="is not a readable weight file"):
        load(*files)


def test_a_checkpoint_of_a_training_run_is_refused(
    files: tuple[Path, Path], states: tuple[dict[str, Tensor], ...]
) -> None:
    torch.save({"model": states[0], "step": 3}, files[0])
    with pytest.raises(WeightsError, match="is not a flat state dict of tensors"):
        load(*files)
