"""What all arms share is chosen once: controls, candidates, the threshold, the references."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.recognition import Recognition
from iarmem_plugin.evaluation.similarity import TokenAgreement
from iarmem_plugin.interfaces import Adapter, Completion
from iarmem_plugin.jobs import protocol
from iarmem_plugin.jobs.arms import Arm
from iarmem_plugin.jobs.protocol import Pictures
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import ScaleWeights
from iarmem_plugin.neurons.selectors import Highest

HALVE = ScaleWeights(0.5)


def test_random_sets_stand_beside_the_arms_as_controls() -> None:
    arms = [Arm(name, Highest(), HALVE, 0.05, seed=7) for name in ("one", "other")]
    made = protocol.with_random_sets(arms, 2, first_seed=8)
    assert made[:2] == arms
    assert [arm.name for arm in made[2:]] == ["random 1", "random 2"]
    assert [arm.seed for arm in made[2:]] == [8, 9]
    assert [arm.role for arm in made] == ["treatment"] * 2 + ["control"] * 2
    assert {(arm.intervention, arm.fraction) for arm in made} == {(HALVE, 0.05)}
    assert {arm.selector.name for arm in made[2:] if arm.selector} == {"random"}


def test_calibration_lets_at_most_its_rate_through(model: ImageARModel, pictures: Images) -> None:
    candidates = Candidates(pictures, np.array(["held-out"] * len(pictures)))
    similarity = TokenAgreement()
    threshold = protocol.calibrate_on(
        model, candidates, similarity, source="these pictures", prefix_tokens=1, rate=0.15
    )
    assert similarity.threshold == threshold
    assert "these pictures" in similarity.threshold_source


def test_both_outcomes_are_fixed_on_the_same_completions(
    model: ImageARModel, pictures: Images
) -> None:
    unseen = Candidates(pictures, np.array(["held-out"] * len(pictures)))
    similarity, recognition = TokenAgreement(), Recognition()
    options = {"prefix_tokens": 1, "rate": 0.15, "source": "these pictures"}
    protocol.calibrate_on(model, unseen, similarity, recognition=recognition, **options)
    tokens = len(model.layout.predicting)
    assert recognition.threshold is not None
    # token agreement counts the prefix of one token, recognition does not
    assert similarity.threshold * tokens == pytest.approx(recognition.threshold * (tokens - 1) + 1)
    assert recognition.source.partition(":")[0] == "these pictures"


def test_given_candidates_are_taken_and_others_are_ranked_by_class(
    model: ImageARModel, pictures: Images
) -> None:
    similarity = TokenAgreement()
    both = Pictures(pictures, given=pictures.subset([1, 2]))
    given = protocol.choose_candidates(model, both, similarity)
    assert given.group.tolist() == ["candidate", "candidate"]
    ranked = protocol.choose_candidates(model, Pictures(pictures), similarity, per_class=1)
    assert sorted(ranked.images.labels.tolist()) == [0, 1, 2, 3, 4]


def test_every_other_held_out_image_fixes_the_threshold_and_the_rest_are_reported(
    model: ImageARModel, pictures: Images
) -> None:
    given = pictures.subset([0, 1])
    unseen = Images.from_arrays(
        np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3), np.uint8),
        np.array([0, 1, 2, 3, 4]),
    )
    similarity = TokenAgreement()
    with pytest.warns(UserWarning, match="was fixed on 3 held-out images"):
        joined = protocol.choose_candidates(
            model, Pictures(pictures, given, unseen), similarity, few=True
        )
    assert joined.group.tolist() == ["candidate"] * 2 + ["held-out"] * 2
    assert joined.images.labels.tolist() == [0, 1, 1, 3]
    assert "half of the held-out images" in similarity.threshold_source
    with pytest.raises(InputError, match="two or more"):
        protocol.with_held_out(model, joined, unseen.subset([0]), similarity, few=True)


def unseen_pictures(count: int) -> Images:
    pixels = np.random.default_rng(1).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return Images.from_arrays(pixels, np.arange(count) % 5)


def test_fewer_than_20_pictures_fix_no_threshold_unless_that_is_asked_for(
    model: ImageARModel, pictures: Images
) -> None:
    similarity = TokenAgreement()
    for count, half in ((38, 19), (37, 19), (3, 2)):
        with pytest.raises(InputError, match=f"^{count} held-out .*: {half} are too few for that"):
            protocol.choose_candidates(
                model, Pictures(pictures, held_out=unseen_pictures(count)), similarity
            )
    assert similarity.threshold == 0.9


def test_fewer_than_100_pictures_warn_with_the_interval_of_the_rate(
    model: ImageARModel, pictures: Images
) -> None:
    given = Pictures(pictures, pictures.subset([0]), unseen_pictures(40))
    expected = r"on 20 held-out images, 0 of which lie above it: .* 0\.0% and 16\.1% \(95%\)"
    with pytest.warns(UserWarning, match=expected):
        protocol.choose_candidates(model, given, TokenAgreement())
    enough = Pictures(pictures, pictures.subset([0]), unseen_pictures(200))
    joined = protocol.choose_candidates(model, enough, TokenAgreement())  # a warning would fail
    assert joined.group.tolist() == ["candidate"] + ["held-out"] * 100


def test_held_out_pictures_that_were_seen_are_told(
    model: ImageARModel, pictures: Images, tmp_path: Path
) -> None:
    for folder in ("0", "1"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        pictures.load(number).save(tmp_path / "0" / f"{number}.png")
    (tmp_path / "1" / "1.png").symlink_to(tmp_path / "0" / "1.png")
    images, again = (Images.from_folder(tmp_path, num_classes=5) for _ in range(2))
    similarity = TokenAgreement(0.5)

    def choose(given: Images, held_out: Images) -> None:
        both = Pictures(given, given, held_out)
        protocol.choose_candidates(model, both, similarity, calibrates=False)

    with pytest.warns(UserWarning, match=r"1 of 2 held-out images .*such as 1/1\.png"):
        choose(images.subset([0, 1]), again.subset([2, 3]))
    with pytest.raises(InputError, match="2 of 2 held-out images are also among"):
        choose(images, again.subset([0, 3]))
    with pytest.raises(InputError, match="2 of 2 held-out images are also among"):
        choose(pictures, pictures.subset([3, 1]))


def test_held_out_pictures_are_all_reported_where_the_threshold_is_given(
    model: ImageARModel, pictures: Images
) -> None:
    similarity = TokenAgreement(threshold=0.75)
    given = Pictures(pictures, held_out=unseen_pictures(3))
    joined = protocol.choose_candidates(model, given, similarity, per_class=1, calibrates=False)
    assert joined.group.tolist() == ["ranked"] * 5 + ["held-out"] * 3
    assert similarity.threshold == 0.75
    # they still were ranked, which the report says
    assert joined.hit_rate is not None
    assert np.isnan(joined.hit_rate).tolist() == [False] * 5 + [True] * 3


def test_half_of_them_fix_the_other_outcome_where_the_threshold_is_given(
    model: ImageARModel, pictures: Images
) -> None:
    similarity, recognition = TokenAgreement(threshold=0.75), Recognition()
    unseen, source = unseen_pictures(5), similarity.threshold_source
    given = Pictures(pictures, pictures, unseen)
    options = {"calibrates": False, "halves": True, "recognition": recognition}
    joined = protocol.choose_candidates(model, given, similarity, **options)
    assert joined.group.tolist() == ["candidate"] * 7 + ["held-out"] * 2
    assert recognition.threshold is None  # three are too few
    protocol.choose_candidates(model, given, similarity, few=True, **options)
    assert (similarity.threshold, similarity.threshold_source) == (0.75, source)
    assert recognition.threshold is not None
    assert "n=3 recognisable" in recognition.source
    assert len(protocol.calibration_half(unseen)) == 3


def test_candidates_are_ranked_in_batches_of_the_given_size(
    model: ImageARModel, adapter: Adapter, pictures: Images
) -> None:
    passes: list[int] = []
    (fc1,) = (m for name, m in adapter.network.named_modules() if name == "blocks.0.ffn.fc1")
    fc1.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    protocol.choose_candidates(
        model, Pictures(pictures), TokenAgreement(), per_class=1, batch_size=3
    )
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
    with pytest.warns(UserWarning, match="was fixed on 4 held-out images"):
        protocol.with_held_out(model, tried, pictures, similarity, few=True, batch_size=3)
    assert similarity.sizes == [3, 1]  # every other one of seven pictures
