"""What blocks hand on, put into another model, against plain PyTorch on the tiny network itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, NonFiniteLogitsError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.depth.patching import BlockOutputs, block_outputs, patched_losses
from iarmem_plugin.evaluation.extraction import make_targets
from iarmem_plugin.interfaces import Condition
from iarmem_plugin.jobs.edits.noisy import NoisyModel
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import ScaleWeights, Zero
from iarmem_plugin.testing.tiny import TinyAdapter
from iarmem_plugin.testing.tiny_model import CLASSES, TinyNetwork

GROUPS = np.array(["canary 40"] * 3 + ["held-out"] * 4)
GIVEN = 5


@pytest.fixture
def model(adapter: TinyAdapter) -> ImageARModel:
    return ImageARModel(adapter)


@pytest.fixture
def twin() -> ImageARModel:
    return ImageARModel(TinyAdapter.make(seed=1))


@pytest.fixture
def candidates(pictures: Images) -> Candidates:
    return Candidates(pictures, GROUPS)


@pytest.fixture
def tokens(model: ImageARModel, candidates: Candidates) -> torch.Tensor:
    return make_targets(model, candidates, model.adapter.variant.views).tokens


@pytest.fixture
def neurons() -> xr.DataArray:
    chosen = np.random.default_rng(0).random((3, 128)) < 0.3
    return xr.DataArray(chosen, dims=("block", "neuron"))


def hidden(adapter: TinyAdapter, tokens: torch.Tensor) -> list[torch.Tensor]:
    """What the network's blocks hand on, by its own modules; first what comes before them."""
    network: Any = adapter.network
    seen = torch.cat([adapter._tokenizer.seen(tokens, scale) for scale in range(3)], 1)
    x = network.word(seen) + network.class_embedding(torch.arange(7) % CLASSES)[:, None]
    states = [x + network.position_embedding]
    for block in network.blocks:
        states.append(block(states[-1]))
    return states


def by_hand(
    adapter: TinyAdapter, after: int, state: torch.Tensor, tokens: torch.Tensor
) -> np.ndarray:
    """The loss of each picture's tokens after those given, from what one block hands on."""
    network: Any = adapter.network
    for block in network.blocks[after + 1 :]:
        state = block(state)
    loss = nn.functional.cross_entropy(network.head(state).mT, tokens, reduction="none")
    return loss[:, GIVEN:].double().mean(1).numpy()


def state_of(adapter: TinyAdapter) -> dict[str, Any]:
    modules = list(adapter.network.modules())
    return {
        "weights": [one.clone() for one in adapter.network.state_dict().values()],
        "hooks": [len(one._forward_hooks) for one in modules],
        "modes": [one.training for one in modules],
        "flags": [one.requires_grad for one in adapter.network.parameters()],
        "random": torch.get_rng_state(),
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@torch.no_grad()
def test_outputs_are_what_the_blocks_return(
    adapter: TinyAdapter, model: ImageARModel, candidates: Candidates, tokens: torch.Tensor
) -> None:
    found = block_outputs(model, candidates, tokens, batch_size=3)
    for mine, expected in zip(found.blocks, hidden(adapter, tokens)[1:], strict=True):
        torch.testing.assert_close(mine, expected)
    assert repr(found) == "BlockOutputs(3 blocks, 7 candidates, 0.1 MB)"


def test_the_original_put_into_itself_predicts_as_before(
    model: ImageARModel, candidates: Candidates, tokens: torch.Tensor
) -> None:
    outputs = block_outputs(model, candidates, tokens, batch_size=3)
    found = patched_losses(model, outputs, candidates, tokens, given=GIVEN, batch_size=3)
    assert found["patched_loss"].dims == ("block", "candidate")
    assert (found["patched_loss"] == found["loss"]).all()
    assert found["role"].values.tolist() == ["canary"] * 3 + ["held-out"] * 4
    assert found.attrs == {"prefix_tokens": GIVEN}


@torch.no_grad()
def test_a_twins_blocks_are_followed_by_what_the_original_does_with_them(
    adapter: TinyAdapter,
    model: ImageARModel,
    twin: ImageARModel,
    candidates: Candidates,
    tokens: torch.Tensor,
) -> None:
    """Of the last block: the twin's last state, and the original's head."""
    outputs = block_outputs(twin, candidates, tokens)
    found = patched_losses(model, outputs, candidates, tokens, given=GIVEN)
    states = hidden(twin.adapter, tokens)[1:]
    for block, state in enumerate(states):
        expected = by_hand(adapter, block, state, tokens)
        np.testing.assert_allclose(found["patched_loss"][block], expected, rtol=1e-5)
    own = by_hand(adapter, -1, hidden(adapter, tokens)[0], tokens)
    np.testing.assert_allclose(found["loss"], own, rtol=1e-5)
    assert (np.abs(found["patched_loss"] - found["loss"]) > 1e-3).any("candidate").all()


@pytest.mark.parametrize("backend", ["weights", "trace"])
def test_an_edit_is_read_while_it_lasts_and_put_in_afterwards(
    model: ImageARModel,
    candidates: Candidates,
    tokens: torch.Tensor,
    neurons: xr.DataArray,
    adapter: TinyAdapter,
    backend: str,
) -> None:
    before = state_of(adapter)
    with intervene(model, neurons, ScaleWeights(0.5), backend=backend) as edited:
        outputs = block_outputs(edited, candidates, tokens)
        last = block_outputs(edited, candidates, tokens).blocks[2]
        with edited.borrowed():
            own = edited.predicted(tokens, Condition.of_images(candidates.images, slice(0, 7)))[1]
    found = patched_losses(model, outputs, candidates, tokens)
    assert torch.equal(last, outputs.blocks[2])
    np.testing.assert_allclose(found["patched_loss"][2], -own.double().mean(1), rtol=1e-6)
    assert (found["patched_loss"][0] != found["loss"]).any()
    assert_same(before, state_of(adapter))


def test_an_edit_of_values_and_one_of_weights_hand_on_the_same(
    model: ImageARModel, candidates: Candidates, tokens: torch.Tensor, neurons: xr.DataArray
) -> None:
    found = []
    for backend in ("weights", "trace"):
        with intervene(model, neurons, ScaleWeights(0.5), backend=backend) as edited:
            found.append(block_outputs(edited, candidates, tokens))
    for one, other in zip(found[0].blocks, found[1].blocks, strict=True):
        torch.testing.assert_close(one, other)
    with intervene(model, neurons, Zero()) as edited:
        values = block_outputs(edited, candidates, tokens)
    assert not torch.allclose(values.blocks[0], found[0].blocks[0])


def test_noise_on_logits_leaves_what_blocks_hand_on(
    model: ImageARModel, candidates: Candidates, tokens: torch.Tensor
) -> None:
    outputs = block_outputs(NoisyModel(model, 1.0, seed=0), candidates, tokens)
    found = patched_losses(model, outputs, candidates, tokens)
    assert (found["patched_loss"] == found["loss"]).all()


def test_nothing_stays_behind_after_an_error(
    adapter: TinyAdapter, model: ImageARModel, candidates: Candidates, tokens: torch.Tensor
) -> None:
    outputs = block_outputs(model, candidates, tokens)
    before = state_of(adapter)
    broken = BlockOutputs((outputs.blocks[0], outputs.blocks[1] * torch.nan, outputs.blocks[2]))
    with pytest.raises(NonFiniteLogitsError, match="the first of them is"):
        patched_losses(model, broken, candidates, tokens)
    wide = BlockOutputs(tuple(torch.cat((one, one), 2) for one in outputs.blocks))
    with pytest.raises(InputError, match=r"block 0 hands on \(7, 21, 32\) and is to be given"):
        patched_losses(model, wide, candidates, tokens)
    assert_same(before, state_of(adapter))


class Pairs(nn.Module):
    """A block that returns a tuple."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.ffn, self.norm = block.ffn, block.norm

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, str]:
        return x + self.ffn(self.norm(x)), "more"


class OfPairs(TinyNetwork):
    """A network whose blocks return tuples, and are called so often."""

    def __init__(self, often: int) -> None:
        super().__init__()
        self.often = often

    def forward(self, labels: torch.Tensor, seen: torch.Tensor, start: int = 0) -> torch.Tensor:
        x = self.word(seen) + self.class_embedding(labels)[:, None]
        x = x + self.position_embedding[start : start + seen.shape[1]]
        for block in self.blocks:
            for _ in range(self.often):
                x, more = block(x)
                assert more == "more"
        return self.head(x)  # type: ignore[no-any-return]  # a module's call


@contextmanager
def of_pairs(adapter: TinyAdapter, often: int = 1) -> Iterator[ImageARModel]:
    network = OfPairs(often)
    network.load_state_dict(adapter.network.state_dict())
    network.blocks = nn.ModuleList(map(Pairs, network.blocks))
    yield ImageARModel(TinyAdapter(network.eval(), adapter._tokenizer))


def test_a_block_may_return_a_tuple_that_begins_with_its_state(
    adapter: TinyAdapter,
    model: ImageARModel,
    twin: ImageARModel,
    candidates: Candidates,
    tokens: torch.Tensor,
) -> None:
    outputs = block_outputs(twin, candidates, tokens)
    expected = patched_losses(model, outputs, candidates, tokens)
    with of_pairs(adapter) as other:
        xr.testing.assert_allclose(patched_losses(other, outputs, candidates, tokens), expected)
        mine = block_outputs(other, candidates, tokens)
    for one, same in zip(mine.blocks, block_outputs(model, candidates, tokens).blocks, strict=True):
        torch.testing.assert_close(one, same)


def test_blocks_that_are_called_twice_are_refused(
    adapter: TinyAdapter, candidates: Candidates, tokens: torch.Tensor
) -> None:
    with of_pairs(adapter, often=2) as other, pytest.raises(InputError, match="called 2 times"):
        block_outputs(other, candidates, tokens)


class Hidden:
    """Completes and predicts, and shows nothing else."""

    def __init__(self, model: ImageARModel) -> None:
        for name in ("layout", "device", "borrowed", "tokenize", "decode", "no_tokens"):
            setattr(self, name, getattr(model, name))
        self.complete, self.logits, self.predicted = model.complete, model.logits, model.predicted


def test_a_model_that_shows_no_blocks_is_refused(
    model: ImageARModel, candidates: Candidates, tokens: torch.Tensor
) -> None:
    hides: Any = Hidden(model)
    with pytest.raises(InputError, match="cannot be read from a Hidden, which shows no adapter"):
        block_outputs(hides, candidates, tokens)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"given": 21}, "21 given tokens leave nothing to predict"),
        ({"tokens": torch.zeros(3, 21, dtype=torch.long)}, "tokens of 3 images were given for 7"),
        ({"tokens": torch.zeros(7, 21)}, "continuous tokens"),
        ({"outputs": BlockOutputs(())}, "was given for a model of 3 blocks and 7 candidates"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    model: ImageARModel,
    candidates: Candidates,
    tokens: torch.Tensor,
    change: dict[str, Any],
    message: str,
) -> None:
    outputs = block_outputs(model, candidates, tokens)
    given = {"outputs": outputs, "tokens": tokens, "given": 0, **change}
    with pytest.raises(InputError, match=message):
        patched_losses(model, candidates=candidates, **given)
