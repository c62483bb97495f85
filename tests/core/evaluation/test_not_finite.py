"""NaN and infinity end in an error that names the image, and never in "0 extracted"."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import NonFiniteSimilarityError, PluginError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.determinism import check_batching
from iarmem_plugin.evaluation.extraction import extract, make_targets
from iarmem_plugin.evaluation.generation import generate
from iarmem_plugin.evaluation.ranking.passes import rank_candidates
from iarmem_plugin.evaluation.similarity import PixelCorrelation, TokenAgreement
from iarmem_plugin.interfaces import Completion, Condition, Sampling
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.testing.tiny import TinyAdapter

NAN = float("nan")


@pytest.fixture
def model(adapter: TinyAdapter) -> ImageARModel:
    return ImageARModel(adapter)


@pytest.fixture
def candidates(pictures: Images) -> Candidates:
    return Candidates(pictures, np.full(len(pictures), "candidate"))


def break_head(adapter: TinyAdapter) -> None:
    with torch.no_grad():
        adapter.network.head.weight[2, 5] = NAN


def break_class(adapter: TinyAdapter) -> None:
    """Break class 2 alone, as one damaged row of an embedding does."""
    with torch.no_grad():
        adapter.network.class_embedding.weight[2] = torch.inf


def break_decoder(adapter: TinyAdapter) -> None:
    with torch.no_grad():
        adapter.tokenizer.decoder[1].bias[1] = NAN


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (break_head, r"logits of 3 of 3 images .* position 5 on.*the first of them is '.*000000"),
        (break_class, r"logits of 1 of 3 images .* position 5 on.*the first of them is '.*000002"),
        (break_decoder, r"decoded 3 of 3 images to values that are not finite, first '.*000000"),
    ],
)
def test_an_extraction_is_refused_by_name(
    adapter: TinyAdapter,
    model: ImageARModel,
    candidates: Candidates,
    damage: Callable[[TinyAdapter], None],
    said: str,
) -> None:
    targets = make_targets(model, candidates, adapter.variant.views)
    damage(adapter)
    with pytest.raises(NonFiniteSimilarityError, match=said):
        extract(
            model,
            candidates,
            targets,
            similarity=TokenAgreement(),  # which does not look at images
            prefix_tokens=5,
            batch_size=3,
        )


def test_targets_of_a_broken_tokenizer_are_refused(
    adapter: TinyAdapter, model: ImageARModel, candidates: Candidates
) -> None:
    break_decoder(adapter)
    with pytest.raises(NonFiniteSimilarityError, match="decoded 7 of 7 images"):
        make_targets(model, candidates, adapter.variant.views)


def test_a_ranking_is_refused_by_name(
    adapter: TinyAdapter, model: ImageARModel, pictures: Images
) -> None:
    break_class(adapter)
    with pytest.raises(NonFiniteSimilarityError, match=r"1 of 7 images .* '.*000002"):
        rank_candidates(model, pictures, adapter.variant.views)


@pytest.mark.parametrize("damage", [break_class, break_decoder])
def test_generated_images_are_refused_by_number_and_class(
    adapter: TinyAdapter, model: ImageARModel, damage: Callable[[TinyAdapter], None]
) -> None:
    damage(adapter)
    labels = np.array([2, 2, 2, 2])
    with pytest.raises(NonFiniteSimilarityError, match="'generated image 0 of class 2'"):
        list(generate(model, Condition.of(labels), Sampling(greedy=False, seed=0)))


def test_a_check_of_batching_is_refused_by_name(
    adapter: TinyAdapter, model: ImageARModel, candidates: Candidates
) -> None:
    break_class(adapter)
    with pytest.raises(NonFiniteSimilarityError, match=r"the first of them is '.*000002"):
        check_batching(model, candidates, adapter.variant.views, prefix_tokens=5, images=7)


def test_a_measure_that_returns_one_number_for_all_images_is_refused(
    adapter: TinyAdapter, model: ImageARModel, candidates: Candidates
) -> None:
    class Mean(PixelCorrelation):
        def compare(self, completion: Completion, target: Completion) -> torch.Tensor:
            return super().compare(completion, target).mean()

    targets = make_targets(model, candidates, adapter.variant.views)
    with pytest.raises(PluginError, match=r"returned shape \(\) for 7 images"):
        extract(model, candidates, targets, similarity=Mean(), prefix_tokens=5)
