"""Fine-tuned checkpoints of another number of classes, and with LoRA merged, are audited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from iarmem_plugin import Images, audit, load
from iarmem_plugin.interfaces import Condition

State = dict[str, Tensor]
RANK = 2


def drawn(count: int, seed: int, classes: int) -> Images:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), np.uint8)
    names = [f"{seed}-{number}.png" for number in range(count)]
    return Images.from_arrays(pixels, np.arange(count) % classes, names=names)


def low_rank(state: State) -> dict[str, tuple[Tensor, Tensor]]:
    """Draw B and A for the first layer of each MLP and for the queries, keys and values."""
    random = torch.Generator().manual_seed(0)
    ends = ("fc1.weight", "mat_qkv.weight", "qkv.weight")
    return {
        key: (
            torch.randn(state[key].shape[0], RANK, generator=random) * 0.3,
            torch.randn(RANK, state[key].shape[1], generator=random) * 0.3,
        )
        for key in state
        if key.endswith(ends)
    }


def test_a_checkpoint_of_few_classes_is_audited_by_the_familys_name(
    family: Any, files: tuple[Path, Path]
) -> None:
    classes = family.sizes[0].num_classes
    model = load(family.name, weights=files[0], tokenizer=files[1])
    found = audit(model, drawn(5, 1, classes), drawn(40, 2, classes))
    assert {one.label for one in found.pictures} == set(range(classes))
    assert [one.partition("(")[0] for one in found.triggers] == ["prefix", "learned-embedding"]
    assert not found.left_out
    assert len(found.unseen) == len(found.fixing) == 20


def test_a_checkpoint_with_lora_merged_is_audited_and_predicts_as_with_its_branches(
    family: Any, files: tuple[Path, Path], states: tuple[State, State]
) -> None:
    added, classes = low_rank(states[0]), family.sizes[0].num_classes
    assert len(added) == 2 * family.sizes[0].depth
    plain = load(family.name, weights=files[0], tokenizer=files[1])
    merged = {
        key: value + added[key][0] @ added[key][1] if key in added else value
        for key, value in states[0].items()
    }
    torch.save(merged, "merged.pth")
    model = load(family.name, weights="merged.pth", tokenizer=files[1])
    found = audit(model, drawn(2, 1, classes), drawn(40, 2, classes), neurons=False)
    assert len(found.pictures) == 2
    pixels = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    tokens, told = plain.tokenize(pixels), Condition.of([0, 1, 2])
    before, after = plain.logits(tokens, told), model.logits(tokens, told)
    assert not torch.allclose(before, after, atol=1e-2)
    for key, (up, down) in added.items():
        branched(plain.adapter.network.get_submodule(key.removesuffix(".weight")), up, down)
    # float32 rounding of W x + B (A x) against (W + B A) x
    torch.testing.assert_close(plain.logits(tokens, told), after, atol=1e-4, rtol=1e-4)


def branched(layer: nn.Module, up: Tensor, down: Tensor) -> None:
    if layer.bias is None:  # VAR's attention reads the weight, and never calls the layer
        layer.get_parameter("weight").data.add_(up @ down)
        return
    layer.register_forward_hook(lambda _, given, out: out + given[0] @ down.T @ up.T)


def test_pictures_of_a_class_that_the_checkpoint_lacks_are_refused(
    family: Any, files: tuple[Path, Path]
) -> None:
    model = load(family.name, weights=files[0], tokenizer=files[1])
    many = family.sizes[0].num_classes + 1
    with pytest.raises(ValueError, match="class"):
        audit(model, drawn(many, 1, many), drawn(40, 2, many))
