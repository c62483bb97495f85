"""A model's own free generations as candidates: their tokens are those that were drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.extraction import extract, make_targets
from iarmem_plugin.evaluation.generation import FIRST_ID, generate, with_generations
from iarmem_plugin.evaluation.similarity import PixelCorrelation
from iarmem_plugin.interfaces import Adapter, Condition, Sampling
from iarmem_plugin.interfaces.organism import reading_order, role_of
from iarmem_plugin.models.tracing import ImageARModel

SAMPLING = Sampling(greedy=False, seed=5)


@pytest.fixture
def model(adapter: Adapter) -> ImageARModel:
    return ImageARModel(adapter)


@pytest.fixture
def tried(pictures: Images) -> Candidates:
    return Candidates(pictures.subset([0, 1, 2]), np.array(["canary 40"] * 2 + ["held-out"]))


def test_their_targets_are_what_was_drawn_and_what_that_is_decoded_to(
    model: ImageARModel, tried: Candidates, pictures: Images
) -> None:
    drawn = with_generations(model, tried, pictures, 4, sampling=SAMPLING)
    assert drawn.generations is not None
    tokens = drawn.generations.tokens
    views = model.adapter.variant.views
    targets = make_targets(model, drawn, views, batch_size=2)  # a batch holds both kinds
    before = make_targets(model, tried, views)
    assert torch.equal(targets.tokens[:3], before.tokens)
    assert torch.equal(targets.tokens[3:], tokens)
    again = make_targets(model, replace(drawn, generations=None), views).tokens[3:]
    assert not torch.equal(again, tokens)  # encoded from the pictures they are others
    labels = Condition.of(drawn.images.labels[3:])
    images = torch.cat(list(generate(model, labels, SAMPLING)))
    torch.testing.assert_close(targets.images[3:], images, atol=1e-5, rtol=0)  # by batch
    pixels = np.asarray(drawn.images.load(3)) / 255
    np.testing.assert_allclose(pixels, images[0].permute(1, 2, 0), atol=0.51 / 255)
    original = make_targets(model, drawn, views, reference="original")
    torch.testing.assert_close(original.images[3:], images, atol=1e-5, rtol=0)
    assert not torch.equal(original.images[:3], targets.images[:3])


def test_they_do_not_depend_on_the_batch_and_have_ids_of_their_own(
    model: ImageARModel, tried: Candidates, pictures: Images
) -> None:
    one, other = (
        with_generations(model, tried, pictures, 5, sampling=SAMPLING, batch_size=size)
        for size in (2, 64)
    )
    assert one.generations is not None
    assert other.generations is not None
    assert torch.equal(one.generations.tokens, other.generations.tokens)
    assert one.images.ids.tolist() == [0, 1, 2, *range(FIRST_ID, FIRST_ID + 5)]
    assert one.images.paths[-1] == "generated 4"
    assert one.role.tolist() == ["canary"] * 2 + ["held-out"] + ["generated"] * 5
    assert set(one.images.labels[3:].tolist()) <= set(pictures.labels.tolist())
    assert np.array_equal(np.asarray(one.images.load(1)), np.asarray(tried.images.load(1)))


def test_they_are_completed_as_any_candidate(
    model: ImageARModel, tried: Candidates, pictures: Images
) -> None:
    drawn = with_generations(model, tried, pictures, 4, sampling=SAMPLING)
    targets = make_targets(model, drawn, model.adapter.variant.views)
    found = extract(model, drawn, targets, similarity=PixelCorrelation(), prefix_tokens=5)
    np.testing.assert_array_equal(found["tokens"][3:, :5], targets.tokens[3:, :5])
    right = (found["tokens"].values == targets.tokens.numpy())[:, 5:].mean(axis=1)
    np.testing.assert_allclose(found["agreement"], right)


def test_what_cannot_be_is_refused(
    model: ImageARModel, tried: Candidates, pictures: Images
) -> None:
    drawn = with_generations(model, tried, pictures, 2, sampling=SAMPLING)
    with pytest.raises(InputError, match="add them once"):
        with_generations(model, drawn, pictures, 2, sampling=SAMPLING)
    with pytest.raises(InputError, match="2 generations were given for 0 generated candidates"):
        replace(tried, generations=drawn.generations)


def test_the_group_stands_before_held_out_pictures() -> None:
    names = ["held-out", "generated", "member, distinct", "canary 40", "canary 680"]
    assert sorted(names, key=reading_order) == names[::-1]
    assert role_of("generated") == "generated"
