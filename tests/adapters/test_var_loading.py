"""VAR's files: what is saved comes back, and what does not fit is refused with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from iarmem_adapters.var import loading
from iarmem_adapters.var.adapter import VARAdapter
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_plugin.errors import InputError, WeightsError

NETWORK = VARConfig(2, 32, 2, (1, 2), num_classes=3, vocab_size=8, code_width=4)
TOKENIZER = VQVAEConfig((1, 2), ch=8, ch_mult=(1, 1), res_blocks=1, vocab_size=8, code_width=4)


class Runs:
    """A pickle that would run a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pickle-ran",)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the name of a released model stand for a tiny one."""
    monkeypatch.setattr(loading, "configs", lambda _: (NETWORK, TOKENIZER))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def network() -> VARTransformer:
    return VARTransformer(NETWORK)


@pytest.fixture
def tokenizer_file() -> Path:
    path = Path("tokenizer.pth")
    torch.save(MultiScaleVQVAE(TOKENIZER).state_dict(), path)
    return path


def load(weights: Path | None, tokenizer: Path | None) -> VARAdapter:
    return VARAdapter.load(
        "var-d16", weights=weights, tokenizer=tokenizer, device="cpu", dtype=torch.float32
    )


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_come_back_as_they_were_saved(
    network: VARTransformer, tokenizer_file: Path, suffix: str
) -> None:
    path = Path(f"weights{suffix}")
    state = network.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = load(path, tokenizer_file).network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_a_half_precision_file_loads_in_float32(
    network: VARTransformer, tokenizer_file: Path
) -> None:
    torch.save(network.half().state_dict(), "weights.pth")
    loaded = load(Path("weights.pth"), tokenizer_file).network
    assert loaded.head.weight.dtype == torch.float32
    assert torch.equal(loaded.head.weight, network.head.weight.float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("head.bias"), r"lacks head\.bias"),
        (lambda state: state.update(more=torch.zeros(1)), "has unknown more"),
        (
            lambda state: state.update({"head.bias": torch.zeros(9)}),
            r"other sizes: head\.bias \(9,\) instead of \(8,\)",
        ),
        (lambda state: state.update(trainer={"x": 1}), "flat state dict"),
    ],
)
def test_keys_that_do_not_fit_are_named(
    network: VARTransformer, tokenizer_file: Path, change: object, message: str
) -> None:
    state = dict(network.state_dict())
    change(state)  # type: ignore[operator]  # one of the above
    torch.save(state, "weights.pth")
    with pytest.raises(WeightsError, match=message):
        load(Path("weights.pth"), tokenizer_file)


def test_a_pickle_with_code_in_it_is_refused_and_not_run(tokenizer_file: Path) -> None:
    torch.save({"head.bias": Runs()}, "weights.pth")
    with pytest.raises(WeightsError, match="not a readable weight file"):
        load(Path("weights.pth"), tokenizer_file)
    assert not Path("pickle-ran").exists()


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"version https://git-lfs"])
def test_a_file_of_something_else_is_refused(tokenizer_file: Path, content: bytes) -> None:
    Path("weights.pth").write_bytes(content)
    with pytest.raises(WeightsError, match="zip archive"):
        load(Path("weights.pth"), tokenizer_file)


def test_a_truncated_file_is_refused(network: VARTransformer, tokenizer_file: Path) -> None:
    torch.save(network.state_dict(), "weights.pth")
    whole = Path("weights.pth").read_bytes()
    Path("weights.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="not a readable weight file"):
        load(Path("weights.pth"), tokenizer_file)


def test_the_transformer_is_no_tokenizer(network: VARTransformer) -> None:
    torch.save(network.state_dict(), "weights.pth")
    with pytest.raises(WeightsError, match="not the tokenizer of var-d16"):
        load(Path("weights.pth"), Path("weights.pth"))


def test_a_file_that_is_not_named_is_asked_for(tokenizer_file: Path) -> None:
    with pytest.raises(InputError, match=r"--weights.*var_d16\.pth"):
        load(None, tokenizer_file)
    with pytest.raises(InputError, match="--tokenizer"):
        load(Path("weights.pth"), None)
