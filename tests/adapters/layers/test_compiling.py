from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import nn

from iarmem_adapters.layers.compiling import compile_tokenizer
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_plugin import load, wrap
from iarmem_plugin.errors import InputError


class Standin(nn.Module):
    """The two parts of a tokenizer, of torch's own layers.

    The real parts cannot be compiled here: while tests run, beartype checks their arguments.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.SiLU())
        self.decoder = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 3, 3, padding=1))


def test_compiled_parts_give_the_same_and_keep_their_weights_names() -> None:
    tokenizer, images = Standin(), torch.rand(2, 3, 8, 8)
    names = list(tokenizer.state_dict())
    with torch.no_grad():
        expected = tokenizer.decoder(tokenizer.encoder(images))
        compile_tokenizer(tokenizer, backend="eager")
        assert torch.equal(expected, tokenizer.decoder(tokenizer.encoder(images)))
    assert names == list(tokenizer.state_dict())


def test_what_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(ValueError, match="got a Linear, expected a tokenizer with encoder"):
        compile_tokenizer(nn.Linear(2, 2))


# torch's own compiler uses what torch has deprecated
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", ["var-organism", "rar-organism"])
def test_loading_compiles_the_tokenizer_and_never_the_transformer(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", sys.executable)  # any program that is there
    adapter = load(name, compile=True).adapter
    compiled = [
        where
        for where, module in adapter.tokenizer.named_modules()
        if module._compiled_call_impl is not None
    ]
    assert compiled == ["encoder", "decoder"]
    assert all(module._compiled_call_impl is None for module in adapter.network.modules())


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"no C\+\+ compiler 'no-such-compiler'; install one"):
        load("var-organism", compile=True)


def test_a_transformer_compiled_in_place_is_refused_and_its_copy_is_not() -> None:
    sizes = VQVAEConfig((1, 2), 8, (1, 1), 1, 16)
    network = VARTransformer(VARConfig(2, 32, 2, (1, 2), vocab_size=16)).eval()
    network.blocks[1].compile(backend="eager")
    tokenizer = MultiScaleVQVAE(sizes).eval()
    with pytest.raises(InputError, match=r"part 'blocks.1' was compiled by its method compile"):
        wrap(network, tokenizer)
    wrap(copy.deepcopy(network), tokenizer).unwrap()
