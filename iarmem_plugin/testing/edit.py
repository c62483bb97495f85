"""What every edit of a whole model must do."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
import torch

from iarmem_plugin.data.images import Images
from iarmem_plugin.interfaces import Condition, EditData, ModelEdit, Sampling
from iarmem_plugin.interfaces.edits import EDIT_PARTS
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.testing.tiny import TinyAdapter
from iarmem_plugin.testing.tiny_model import CLASSES, PIXELS

PICTURES, PREFIX = 4, 5


class ModelEditTests:
    """Subclass it and give the fixture `edit`: an instance, of few steps where it trains."""

    @pytest.fixture
    def edit(self) -> ModelEdit:
        """Return the instance under test."""
        raise NotImplementedError("give the fixture `edit`")

    @pytest.fixture
    def model(self) -> ImageARModel:
        """Return a small untrained model."""
        return ImageARModel(TinyAdapter.make())

    @pytest.fixture
    def data(self, edit: ModelEdit) -> EditData:
        """Return pictures of noise, in those parts alone that the edit needs."""
        return noise(edit.needs)

    def test_its_parameters_fit_into_the_report(self, edit: ModelEdit) -> None:
        """JSON values by name, a name by which users choose it, and needs that there are."""
        values = dict(edit.parameters)
        assert json.loads(json.dumps(values)) == values
        assert edit.name
        assert edit.needs <= EDIT_PARTS.keys()

    def test_it_changes_what_the_model_completes_and_predicts(
        self, edit: ModelEdit, model: ImageARModel, data: EditData
    ) -> None:
        """Finite logits, others than before; a prefix stays."""
        before = answers(model)
        with edit.edited(model, data, seed=1) as edited:
            tokens, logits = answers(edited)
        assert tokens.shape == before[0].shape
        assert torch.equal(tokens[:, :PREFIX], before[0][:, :PREFIX])
        assert bool(logits.isfinite().all())
        assert not torch.equal(logits, before[1])

    def test_the_same_seed_edits_alike(
        self, edit: ModelEdit, model: ImageARModel, data: EditData
    ) -> None:
        """Whatever was drawn at random before."""
        found = []
        for drawn in (0, 3):
            torch.rand(drawn)
            with edit.edited(model, data, seed=5) as edited:
                found.append(answers(edited))
        assert all(torch.equal(*each) for each in zip(*found, strict=True))

    def test_an_image_does_not_depend_on_the_others_of_its_batch(
        self, edit: ModelEdit, model: ImageARModel, data: EditData
    ) -> None:
        """Completed and predicted alone, it gives the same."""
        with edit.edited(model, data, seed=1) as edited:
            together, alone = answers(edited), answers(edited, slice(2, 3))
        assert torch.equal(together[0][2:3], alone[0])
        torch.testing.assert_close(together[1][2:3], alone[1], rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("fails", [False, True])
    def test_the_model_comes_back_as_it_was(
        self, edit: ModelEdit, model: ImageARModel, data: EditData, *, fails: bool
    ) -> None:
        """Weights, modes, flags, gradients; also after an exception."""
        network = model.adapter.network.train()
        network.requires_grad_(False)
        weights = {name: one.clone() for name, one in network.state_dict().items()}
        try:
            with edit.edited(model, data, seed=1) as edited:
                answers(edited)
                if fails:
                    raise InterruptedError
        except InterruptedError:
            assert fails
        assert all(torch.equal(weights[name], one) for name, one in network.state_dict().items())
        assert all(part.training for part in network.modules())
        assert not any(one.requires_grad or one.grad is not None for one in network.parameters())


def noise(needs: Collection[str]) -> EditData:
    """Return pictures of noise, in the parts that are named."""
    random, size = np.random.default_rng(0), (PICTURES, PIXELS, PIXELS, 3)
    labels = np.arange(PICTURES) % CLASSES
    made = {
        part: Images.from_arrays(random.integers(0, 256, size, np.uint8), labels)
        for part in EDIT_PARTS
    }
    return EditData(**{part: images for part, images in made.items() if part in needs})


def shown(rows: slice = slice(0, PICTURES)) -> tuple[torch.Tensor, Condition]:
    """Return the tokens of some images, and what the model is told of them."""
    tokens = torch.arange(PICTURES * 21).remainder(16).view(PICTURES, 21)[rows]
    labels = torch.arange(PICTURES).remainder(CLASSES)
    return tokens, Condition.of(labels[rows], image=torch.arange(PICTURES)[rows])


def answers(model: Any, rows: slice = slice(0, PICTURES)) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a model completes of some images, and the logits that it predicts them with."""
    tokens, told = shown(rows)
    with model.borrowed():
        return model.complete(tokens[:, :PREFIX], told, Sampling()), model.logits(tokens, told)
