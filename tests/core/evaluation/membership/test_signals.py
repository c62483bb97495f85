"""Membership signals, against plain PyTorch on the tiny network itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from rich.progress import Progress

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, NonFiniteLogitsError, NonFiniteSimilarityError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.extraction import make_targets
from iarmem_plugin.evaluation.generation import with_generations
from iarmem_plugin.evaluation.membership.signals import lowest_fifth, membership_signals
from iarmem_plugin.interfaces import Sampling
from iarmem_plugin.jobs.edits.noisy import NoisyModel
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.testing.tiny import TinyAdapter
from iarmem_plugin.testing.tiny_model import CLASSES

GROUPS = np.array(["canary 40"] * 3 + ["held-out"] * 4)


class Classless(TinyAdapter):
    without_class = False


@pytest.fixture
def model(adapter: TinyAdapter) -> ImageARModel:
    return ImageARModel(adapter)


@pytest.fixture
def candidates(pictures: Images) -> Candidates:
    return Candidates(pictures, GROUPS)


@pytest.fixture
def tokens(model: ImageARModel, candidates: Candidates) -> torch.Tensor:
    return make_targets(model, candidates, model.adapter.variant.views).tokens


def plainly(adapter: TinyAdapter, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Log-likelihoods of the tokens, by the network itself."""
    seen = torch.cat([adapter.tokenizer.seen(tokens, scale) for scale in range(3)], 1)
    with torch.no_grad():
        logits = adapter.network(labels, seen)
    cross_entropy = torch.nn.functional.cross_entropy
    return -cross_entropy(logits.double().mT, tokens, reduction="none")


def test_signals_are_what_the_network_says(
    adapter: TinyAdapter, model: ImageARModel, candidates: Candidates, tokens: torch.Tensor
) -> None:
    found = membership_signals(model, candidates, tokens)
    labels = torch.arange(7) % CLASSES
    likely = plainly(adapter, tokens, labels)
    untold = plainly(adapter, tokens, torch.full_like(labels, CLASSES))
    expected = {
        "nll": likely.mean(1),
        "min-k": torch.tensor([sorted(row)[:4] for row in likely.tolist()]).mean(1),  # of 21
        "conditional-unconditional": (likely - untold).mean(1),
    }
    assert found["signal"].values.tolist() == list(expected)
    assert found["membership"].dtype == np.float64
    for name, values in expected.items():
        mine = found["membership"].sel(signal=name)
        np.testing.assert_allclose(mine, values, rtol=1e-5, atol=1e-7)  # float32 passes
    assert found.attrs["left_out"] == ""
    assert found["group"].values.tolist() == GROUPS.tolist()
    assert found["role"].values.tolist() == ["canary"] * 3 + ["held-out"] * 4
    assert found["path"].values.tolist() == list(candidates.images.paths)


def test_the_worst_fifth_has_at_least_one_token() -> None:
    given = torch.tensor([[-3.0, -1, -2, -5]], dtype=torch.float64)
    assert lowest_fifth(given).tolist() == [-5]
    nine = torch.cat((given, given, given[:, :1]), 1)
    assert lowest_fifth(nine).tolist() == [-5]
    assert lowest_fifth(torch.cat((nine, given[:, 1:2]), 1)).tolist() == [-5]
    assert lowest_fifth(torch.cat((nine, nine), 1)).tolist() == [-5]  # three of eighteen


def test_the_batch_does_not_matter_and_a_bar_is_shown(
    model: ImageARModel, candidates: Candidates, tokens: torch.Tensor
) -> None:
    bars = Progress(disable=False)
    whole = membership_signals(model, candidates, tokens, progress=bars)
    parts = membership_signals(model, candidates, tokens, batch_size=2)
    xr.testing.assert_allclose(whole, parts, rtol=1e-5)
    assert [(bar.description, bar.completed) for bar in bars.tasks] == [
        ("reading membership signals", 7)
    ]


def test_a_model_that_predicts_nothing_without_a_class_lacks_one_signal(
    adapter: TinyAdapter, candidates: Candidates, tokens: torch.Tensor
) -> None:
    model = ImageARModel(Classless(adapter.network, adapter.tokenizer))
    found = membership_signals(model, candidates, tokens)
    assert found["signal"].values.tolist() == ["nll", "min-k"]
    assert found.attrs["left_out"] == (
        "conditional-unconditional is left out: this model of family tiny predicts nothing "
        "without a class"
    )


@pytest.mark.parametrize(("asked", "signals"), [(None, 3), (False, 2)])
def test_a_noisy_model_is_measured_as_it_is_told(
    model: ImageARModel,
    candidates: Candidates,
    tokens: torch.Tensor,
    asked: bool | None,
    signals: int,
) -> None:
    noisy = NoisyModel(model, std=0.5, seed=0)
    found = membership_signals(noisy, candidates, tokens, without_class=asked)
    assert found.sizes["signal"] == signals
    again = membership_signals(noisy, candidates, tokens, without_class=asked, batch_size=3)
    xr.testing.assert_allclose(found, again, rtol=1e-5)  # noise is an image's own


def test_generated_candidates_are_predicted_by_the_tokens_that_were_drawn(
    adapter: TinyAdapter, model: ImageARModel, candidates: Candidates
) -> None:
    drawn = with_generations(
        model, candidates, candidates.images, 5, sampling=Sampling(greedy=False, seed=1)
    )
    tokens = make_targets(model, drawn, adapter.variant.views).tokens
    found = membership_signals(model, drawn, tokens)
    assert drawn.generations is not None
    labels = torch.from_numpy(drawn.images.labels[7:].astype(np.int64))
    expected = plainly(adapter, drawn.generations.tokens, labels).mean(1)
    mine = found["membership"].sel(signal="nll").values[7:]
    np.testing.assert_allclose(mine, expected, rtol=1e-5)


def test_broken_logits_are_refused_by_name(
    adapter: TinyAdapter, model: ImageARModel, candidates: Candidates, tokens: torch.Tensor
) -> None:
    with torch.no_grad():
        adapter.network.class_embedding.weight[2] = torch.inf
    with pytest.raises(NonFiniteLogitsError, match=r"the first of them is '.*000002"):
        membership_signals(model, candidates, tokens)


def test_broken_logits_without_a_class_are_refused_too(
    adapter: TinyAdapter, model: ImageARModel, candidates: Candidates, tokens: torch.Tensor
) -> None:
    with torch.no_grad():
        adapter.network.class_embedding.weight[CLASSES] = torch.nan
    with pytest.raises(NonFiniteLogitsError, match=r"the first of them is '.*000000"):
        membership_signals(model, candidates, tokens)


def test_a_token_without_any_probability_is_refused_by_name(
    adapter: TinyAdapter, model: ImageARModel, candidates: Candidates, tokens: torch.Tensor
) -> None:
    never = int(tokens[1, 0])
    with torch.no_grad():
        adapter.network.head.weight[never] = 0
        adapter.network.head.bias[never] = -torch.inf
    with pytest.raises(NonFiniteSimilarityError, match="the membership signal 'nll' is not finite"):
        membership_signals(model, candidates, tokens)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (torch.zeros(6, 21, dtype=torch.int64), "tokens of 6 images were given for 7 candidates"),
        (torch.zeros(7, 21), "continuous tokens .* cannot be predicted with a likelihood"),
    ],
)
def test_tokens_of_others_are_refused(
    model: ImageARModel, candidates: Candidates, tokens: torch.Tensor, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        membership_signals(model, candidates, tokens)


def test_other_things_than_candidates_are_refused(
    model: ImageARModel, tokens: torch.Tensor, pictures: Any
) -> None:
    none = Candidates(pictures.subset([]), np.array([], dtype=np.str_))
    with pytest.raises(InputError, match="there are no images"):
        membership_signals(model, none, tokens[:0])
