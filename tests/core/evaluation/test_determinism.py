"""What batches change is counted, and told from near ties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.determinism import (
    NEAR,
    BatchingCheck,
    check_batching,
    compare_choices,
    top_gaps,
)
from iarmem_plugin.evaluation.extraction import Candidates
from iarmem_plugin.interfaces import Adapter, Condition, Sampling
from iarmem_plugin.models.tracing import ImageARModel


def test_only_an_images_first_flip_counts_and_what_is_near() -> None:
    first = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]])
    second = torch.tensor([[0, 1, 2, 3], [0, 9, 9, 3], [0, 1, 2, 9]])
    gaps = torch.tensor([[0.0, 1.0, 1e-4, 1.0], [0.0, 1e-4, 0.0, 0.0], [0.0, 1.0, 1.0, 0.5]])
    # the first token was given; of the second image, only the second token is compared
    assert compare_choices(first, second, gaps, 1) == (3 + 1 + 3, 2, 2, 1)


def test_the_gap_is_between_the_two_best_logits() -> None:
    logits = torch.tensor([[[0.0, 3.0, 2.5, -1.0], [1.0, 1.0, 0.0, 0.0]]])
    assert top_gaps(logits).tolist() == [[0.5, 0.0]]


@pytest.fixture
def candidates(pictures: Images) -> Candidates:
    return Candidates(pictures, np.full(len(pictures), "any"))


def test_a_check_counts_what_batches_change(adapter: Adapter, candidates: Candidates) -> None:
    model = ImageARModel(adapter)
    check = check_batching(model, candidates, Views(crop=8), prefix_tokens=5, batch_size=4)
    assert (check.images, check.batch_sizes) == (7, (4, 1))
    assert (check.read_differently, check.flips, check.clear_flips) == (0, 0, 0)
    assert check.tokens == 7 * 16
    assert check.summary.startswith("batches of 4 and of 1: 0 flips")


class Moody(ImageARModel):
    """Adds 1 to the last token of images that come alone."""

    def complete(self, prefix: Tensor, condition: Condition, sampling: Sampling) -> Tensor:
        tokens = super().complete(prefix, condition, sampling)
        if len(prefix) == 1:
            tokens[:, -1] = (tokens[:, -1] + 1) % 16
        return tokens


def test_tokens_that_flip_by_a_clear_gap_are_warned_of(
    adapter: Adapter, candidates: Candidates
) -> None:
    model = Moody(adapter)
    with pytest.warns(RuntimeWarning, match="3 flips, 3 of them"):
        check = check_batching(
            model, candidates, Views(crop=8), prefix_tokens=5, batch_size=4, images=3
        )
    assert (check.images, check.flips) == (3, 3)
    assert check.clear_flips == 3


def test_candidates_of_a_check_are_spread_over_all(
    adapter: Adapter, candidates: Candidates
) -> None:
    check = check_batching(
        ImageARModel(adapter), candidates, Views(crop=8), prefix_tokens=21, batch_size=1, images=2
    )
    assert check == BatchingCheck(2, (1, 2), 0, 0, 0, 0, 0)  # a full prefix leaves no choice


def test_nothing_to_compare_is_refused(adapter: Adapter, candidates: Candidates) -> None:
    with pytest.raises(InputError, match="cannot compare 0 images"):
        check_batching(ImageARModel(adapter), candidates, Views(crop=8), prefix_tokens=5, images=0)


def test_near_is_the_stated_gap() -> None:
    assert NEAR == 1e-3
