from __future__ import annotations

import pytest
import torch
from torch import nn

from iarmem_adapters.compiled import compile_tokenizer


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
