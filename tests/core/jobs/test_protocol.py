"""What is named on the command line becomes the objects that were meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, UnknownNameError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.similarity import TokenAgreement
from iarmem_plugin.interfaces import Completion, Quality, QualityValue
from iarmem_plugin.jobs import protocol as choices
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.testing.tiny import TinyAdapter


@pytest.fixture
def model(adapter: TinyAdapter) -> ImageARModel:
    return ImageARModel(adapter)


def test_random_sets_stand_beside_the_chosen_arm() -> None:
    made = choices.arms("highest", "scale-weights", 0.25, 0.05, 2, 7)
    assert [arm.name for arm in made] == ["highest", "random 1", "random 2"]
    assert [arm.seed for arm in made] == [7, 8, 9]
    assert {arm.intervention.parameters["factor"] for arm in made if arm.intervention} == {0.25}
    assert {arm.fraction for arm in made} == {0.05}


def test_a_random_arm_has_no_control_with_its_own_seed() -> None:
    arm, *controls = choices.arms("random", "scale-weights", None, 0.05, 3, 0)
    assert arm.seed not in [control.seed for control in controls]


def test_a_factor_is_refused_where_there_is_none() -> None:
    with pytest.raises(InputError, match="takes no factor"):
        choices.make_intervention("zero", 0.5)
    assert choices.make_intervention("zero", None).name == "zero"
    with pytest.raises(UnknownNameError, match="scale-weights"):
        choices.make_intervention("halve", None)


def test_a_similarity_gets_the_file_that_it_needs_and_no_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--sscd FILE"):
        choices.similarity("sscd", None)
    with pytest.raises(InputError, match="takes no file"):
        choices.similarity("correlation", tmp_path)
    assert choices.similarity("correlation", None).name == "correlation"


def test_given_candidates_are_taken_and_others_are_ranked_by_class(
    model: ImageARModel, pictures: Images
) -> None:
    given = choices.candidates(model, pictures, pictures.subset([1, 2]), 5, None)
    assert given.group.tolist() == ["candidate", "candidate"]
    ranked = choices.candidates(model, pictures, None, 1, None)
    assert sorted(ranked.images.labels.tolist()) == [0, 1, 2, 3, 4]


def test_every_other_held_out_image_fixes_the_threshold_and_the_rest_are_reported(
    model: ImageARModel, pictures: Images
) -> None:
    candidates = Candidates(pictures.subset([0, 1]), np.array(["candidate"] * 2))
    unseen = Images.from_arrays(
        np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3), np.uint8),
        np.array([0, 1, 2, 3, 4]),
    )
    similarity = TokenAgreement()
    joined = choices.with_held_out(model, candidates, unseen, similarity, None)
    assert joined.group.tolist() == ["candidate"] * 2 + ["held-out"] * 2
    assert joined.images.labels.tolist() == [0, 1, 1, 3]
    assert "half of the held-out images" in similarity.threshold_source
    with pytest.raises(InputError, match="two or more"):
        choices.with_held_out(model, candidates, unseen.subset([0]), similarity, None)


def test_candidates_are_ranked_in_batches_of_the_given_size(
    model: ImageARModel, adapter: TinyAdapter, pictures: Images
) -> None:
    passes: list[int] = []
    (fc1,) = (m for name, m in adapter.network.named_modules() if name == "blocks.0.ffn.fc1")
    fc1.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    choices.candidates(model, pictures, None, 1, None, batch_size=3)
    assert set(passes) == {3, 1}  # seven pictures


class CountingAgreement(TokenAgreement):
    """Token agreement that keeps the sizes of the batches it compares."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def compare(self, completion: Completion, target: Completion) -> torch.Tensor:
        self.sizes.append(len(target.tokens))
        return super().compare(completion, target)


def test_the_threshold_is_fixed_in_batches_of_the_given_size(
    model: ImageARModel, pictures: Images
) -> None:
    tried = Candidates(pictures.subset([0]), np.array(["candidate"]))
    similarity = CountingAgreement()
    choices.with_held_out(model, tried, pictures, similarity, None, batch_size=3)
    assert similarity.sizes == [3, 1]  # every other one of seven pictures


class CountingQuality(Quality):
    """A quality measure that keeps the sizes of the batches it is given."""

    name = "counting"
    minimum = 2
    provenance: Mapping[str, str | int | None] = {}

    def __init__(self, *_: object, **__: object) -> None:
        self.sizes: list[int] = []

    def features(self, images: Iterable[torch.Tensor]) -> np.ndarray:
        self.sizes += [len(batch) for batch in images]
        return np.zeros((sum(self.sizes), 1))

    def compare(
        self, generated: np.ndarray, reference: np.ndarray, *, reference_name: str
    ) -> list[QualityValue]:
        return []


def test_reference_features_are_computed_in_batches_of_the_given_size(
    model: ImageARModel, pictures: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "TorchFidelity", CountingQuality)
    made = choices.quality(model, Path("weights.pth"), pictures, 10, 0, batch_size=3)
    assert isinstance(made.quality, CountingQuality)
    assert made.quality.sizes == [3, 3, 1]
