from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from jaxtyping import TypeCheckError
from rich.console import Console
from rich.progress import Progress

from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, NonFiniteSimilarityError
from iarmem_plugin.evaluation.counts import count_extracted
from iarmem_plugin.evaluation.extraction import (
    Candidates,
    Completes,
    calibrate,
    extract,
    make_targets,
    rank_candidates,
)
from iarmem_plugin.evaluation.similarity import PixelCorrelation, TokenAgreement
from iarmem_plugin.interfaces import Condition, Sampling, Similarity
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.interfaces.mlp import MLP, Reads, Site, Writes
from iarmem_plugin.interfaces.prediction import hits_and_likelihoods

SIDE, LEVELS = 4, 6  # 16 tokens; a token is a grey value in steps of a fifth
TOKENS = SIDE * SIDE


class Parrot:
    """A model that knows some pictures by heart: it completes them, and predicts zeros otherwise.

    `known` maps a label to the tokens of the one picture of that class that was memorized.
    """

    layout = ModelLayout(
        family="parrot",
        num_blocks=1,
        neurons_per_block=1,
        scales=(Scale("0", tuple(range(12))), Scale("1", (12, 13, 14, 15))),
        mlp=MLP(Writes("{block}.c"), {"fc1": Reads("{block}.a")}, Site("{block}.b")),
        predicting=range(16),
    )
    device = torch.device("cpu")

    def __init__(self, known: dict[int, torch.Tensor], sure: float = 5.0) -> None:
        self.known, self.sure = known, sure
        self.is_borrowed = False
        self.samplings: list[Sampling] = []

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        self.is_borrowed = True
        with torch.inference_mode():
            try:
                yield
            finally:
                self.is_borrowed = False

    def tokenize(self, images: torch.Tensor) -> torch.Tensor:
        return (images[:, 0] * (LEVELS - 1)).round().long().flatten(1)

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        grey = tokens.view(-1, 1, SIDE, SIDE).float() / (LEVELS - 1)
        return grey.expand(-1, 3, -1, -1)

    def no_tokens(self, images: int) -> torch.Tensor:
        return torch.zeros(images, 0, dtype=torch.int64)

    def complete(
        self, prefix: torch.Tensor, condition: Condition, sampling: Sampling
    ) -> torch.Tensor:
        assert self.is_borrowed
        self.samplings.append(sampling)
        rest = torch.stack([self.recall(label)[prefix.shape[1] :] for label in condition.label])
        return torch.cat([prefix, rest], dim=1)

    def logits(self, tokens: torch.Tensor, condition: Condition) -> torch.Tensor:
        assert self.is_borrowed
        said = torch.stack([self.recall(label) for label in condition.label])
        return self.sure * torch.nn.functional.one_hot(said, LEVELS).float()

    def predicted(
        self, tokens: torch.Tensor, condition: Condition
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return hits_and_likelihoods(self.logits(tokens, condition), tokens)

    def recall(self, label: torch.Tensor) -> torch.Tensor:
        return self.known.get(int(label), torch.zeros(TOKENS, dtype=torch.int64))


def grey_pictures(count: int, seed: int = 0) -> np.ndarray:
    """Uint8 [image, side, side, 3], in the parrot's grey values."""
    levels = np.random.default_rng(seed).integers(0, LEVELS, (count, SIDE, SIDE, 1))
    return np.repeat(levels * 51, 3, axis=3).astype(np.uint8)


def tokens_of(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture[:, :, 0].astype(np.int64) // 51).flatten()


PICTURES = grey_pictures(6)
IMAGES = Images.from_arrays(PICTURES, np.arange(6), names=[f"class {i}/a.png" for i in range(6)])
CANDIDATES = Candidates(IMAGES, np.array(["canary"] * 2 + ["held-out"] * 4))
VIEWS = Views(crop=SIDE)


def parrot(*known: int) -> Parrot:
    return Parrot({label: tokens_of(PICTURES[label]) for label in known})


def attack(model: Parrot, **settings) -> xr.Dataset:
    settings = {"similarity": PixelCorrelation(0.9), "prefix_tokens": 3} | settings
    return extract(model, CANDIDATES, make_targets(model, CANDIDATES, VIEWS), **settings)


class Constant(Similarity):
    """Gives every image the same similarity."""

    name = "constant"
    threshold_source = "test"

    def __init__(self, value: float, threshold: float) -> None:
        self.value, self.threshold = value, threshold

    def compare(self, completion, target):
        return torch.full((len(target.tokens),), self.value)


def test_the_fake_model_is_one_that_an_attack_can_use():
    assert isinstance(parrot(), Completes)


def test_exactly_the_memorized_pictures_are_extracted():
    result = attack(parrot(0, 3))
    assert result["extracted"].values.tolist() == [True, False, False, True, False, False]


def test_a_memorized_picture_comes_back_whole():
    result = attack(parrot(0))
    assert result["tokens"].sel(candidate=0).values.tolist() == tokens_of(PICTURES[0]).tolist()
    # 1e-6: a correlation of equal images, rounded to float32
    assert float(result["similarity"][0]) == pytest.approx(1.0, abs=1e-6)


def test_equal_tokens_count_the_prefix_and_the_lucky_ones():
    result = attack(parrot(), prefix_tokens=3)
    expected = [3 + int((tokens_of(picture)[3:] == 0).sum()) for picture in PICTURES]
    assert result["equal_tokens"].values.tolist() == expected


def test_a_whole_prefix_extracts_everything():
    result = attack(parrot(), prefix_tokens=TOKENS)
    assert (result["equal_tokens"] == TOKENS).all()
    assert result["extracted"].all()


def test_an_empty_prefix_is_generation():
    result = attack(parrot(1), prefix_tokens=0)
    assert result["extracted"].values.tolist() == [False, True, False, False, False, False]


def test_the_result_says_which_candidate_is_which():
    model, chosen = parrot(4), CANDIDATES.images.subset([4, 1])
    candidates = Candidates(chosen, np.array(["canary", "held-out"]))
    result = extract(
        model,
        candidates,
        make_targets(model, candidates, VIEWS),
        similarity=TokenAgreement(),
        prefix_tokens=1,
    )
    assert result["image"].values.tolist() == [4, 1]
    assert result["path"].values.tolist() == ["class 4/a.png", "class 1/a.png"]
    assert result["label"].values.tolist() == [4, 1]
    assert result["group"].values.tolist() == ["canary", "held-out"]
    assert result["role"].values.tolist() == ["canary", "held-out"]
    assert result["extracted"].values.tolist() == [True, False]


def test_dims_and_types_are_as_documented():
    result = attack(parrot(0))
    assert dict(result.sizes) == {"candidate": 6, "token": TOKENS}
    assert {name: str(variable.dtype) for name, variable in result.data_vars.items()} == {
        "similarity": "float32",
        "equal_tokens": "int32",
        "tokens": "int32",
        "extracted": "bool",
        "agreement": "float64",
    }


def test_the_result_holds_all_settings():
    attributes = attack(parrot(0), batch_size=5).attrs
    sampling = json.loads(attributes.pop("sampling"))
    assert (sampling["greedy"], sampling["guidance"]) == (True, 0.0)
    assert attributes == {
        "similarity": "correlation",
        "threshold": 0.9,
        "threshold_source": "given by the user",
        "prefix_tokens": 3,
        "reference": "reconstruction",
        "batch_size": 5,
    }


def test_every_count_can_be_recomputed_from_what_is_stored():
    result = attack(parrot(0, 3))
    stored = xr.Dataset.from_dict(json.loads(json.dumps(result.to_dict())))
    recounted = stored.assign(extracted=stored["similarity"] > stored.attrs["threshold"])
    xr.testing.assert_equal(count_extracted(recounted), count_extracted(result))


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_do_not_change_the_result(batch_size):
    result = attack(parrot(0, 3), batch_size=batch_size)
    xr.testing.assert_equal(result, attack(parrot(0, 3), batch_size=6))


def test_extracted_means_strictly_above_the_threshold():
    assert not attack(parrot(), similarity=Constant(0.75, 0.75))["extracted"].any()
    assert attack(parrot(), similarity=Constant(0.75, 0.7499))["extracted"].all()


def test_a_threshold_is_not_rounded_to_float32():
    value = float(np.float32(0.95))  # 0.949999988...
    assert not attack(parrot(), similarity=Constant(value, value + 1e-9))["extracted"].any()
    assert attack(parrot(), similarity=Constant(value, value - 1e-9))["extracted"].all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_similarity_that_is_not_finite_is_an_error(value):
    with pytest.raises(NonFiniteSimilarityError, match=r"'constant'.*6 of 6.*class 0/a\.png"):
        attack(parrot(), similarity=Constant(value, 0.5))


def test_the_model_is_given_back_after_an_error():
    model = parrot()
    with pytest.raises(InputError):
        attack(model, prefix_tokens=TOKENS + 1)
    assert not model.is_borrowed


@pytest.mark.parametrize("prefix_tokens", [-1, TOKENS + 1])
def test_an_impossible_prefix_is_refused(prefix_tokens):
    with pytest.raises(InputError, match=f"prefix of {prefix_tokens} tokens.*have 16"):
        attack(parrot(), prefix_tokens=prefix_tokens)


def test_targets_of_other_candidates_are_refused():
    fewer = Candidates(IMAGES.subset([0]), np.array(["canary"]))
    with pytest.raises(InputError, match="1 targets for 6 candidates"):
        extract(
            parrot(),
            CANDIDATES,
            make_targets(parrot(), fewer, VIEWS),
            similarity=TokenAgreement(),
            prefix_tokens=1,
        )


def test_decoding_is_greedy_and_unguided_by_default():
    model = parrot()
    attack(model, batch_size=4)
    assert [(s.greedy, s.guidance, s.seed) for s in model.samplings] == [(True, 0.0, 0)] * 2


def image_seeds(seed: int | tuple[int, ...], batch_size: int) -> tuple[int, ...]:
    """The seed with which each of the six candidates was completed."""
    model = parrot()
    attack(model, batch_size=batch_size, sampling=Sampling(greedy=False, seed=seed))
    return sum((sampling.seed for sampling in model.samplings), ())


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_every_candidate_has_a_seed_of_its_own_whatever_its_batch(batch_size):
    seeds = image_seeds(0, batch_size)
    assert seeds == image_seeds(0, 6)
    assert len({*seeds, *image_seeds(1, 6)}) == 12


def test_the_user_may_give_each_candidate_its_seed():
    assert image_seeds((3, 1, 4, 1, 5, 9), 4) == (3, 1, 4, 1, 5, 9)


def test_progress_is_shown_where_asked():
    progress = Progress(console=Console(file=io.StringIO()))
    attack(parrot(), batch_size=4, progress=progress)
    (task,) = progress.tasks
    assert (task.description, task.completed, task.total) == ("completing prefixes", 6, 6)


def test_targets_are_decoded_from_the_tokens_by_default():
    between = PICTURES[:1].copy()
    between[0, 0, 0] = 60  # no grey value of the parrot's: its tokenizer loses this
    one = Candidates(Images.from_arrays(between, np.zeros(1, np.int64)), np.array(["canary"]))
    targets = make_targets(parrot(), one, VIEWS)
    assert targets.images[0, 0, 0, 0].item() == pytest.approx(0.2, abs=1e-7)  # 51 / 255
    original = make_targets(parrot(), one, VIEWS, reference="original")
    assert original.images[0, 0, 0, 0].item() == pytest.approx(60 / 255, abs=1e-7)
    assert torch.equal(original.tokens, targets.tokens)


def test_targets_are_read_from_the_centre_view():
    framed = np.full((1, SIDE + 2, SIDE + 2, 3), 255, np.uint8)
    framed[:, 1:-1, 1:-1] = PICTURES[:1]
    one = Candidates(Images.from_arrays(framed, np.zeros(1, np.int64)), np.array(["canary"]))
    assert torch.equal(make_targets(parrot(), one, VIEWS).tokens[0], tokens_of(PICTURES[0]))


def test_candidates_without_their_groups_are_refused():
    with pytest.raises(InputError, match="6 candidates with groups of shape"):
        Candidates(IMAGES, np.array(["canary"]))


def test_a_group_has_the_role_that_was_given_or_that_of_its_name():
    groups = np.array(["mine", "canary x2", "canary x2", "member", "held-out", "other"])
    candidates = Candidates(IMAGES, groups, roles={"mine": "member", "canary x2": "held-out"})
    expected = ["member", "held-out", "held-out", "member", "held-out", "candidate"]
    assert candidates.role.tolist() == expected


@pytest.mark.parametrize("roles", [{"canaries": "canary"}, {"canary": "poison"}])
def test_a_role_of_no_group_and_a_role_that_is_none_are_refused(roles):
    with pytest.raises((InputError, TypeCheckError)):  # the gate's type checks come first
        Candidates(IMAGES, CANDIDATES.group, roles=roles)


def test_no_candidates_are_refused():
    with pytest.raises(InputError, match="no images"):
        make_targets(parrot(), Candidates(IMAGES.subset([]), np.array([], dtype=np.str_)), VIEWS)


@pytest.mark.parametrize(
    ("rate", "size", "exceeding"),
    [(0.01, 100, 1), (0.01, 99, 0), (0.01, 250, 2), (0.29, 100, 29), (0.0, 50, 0), (0.5, 1, 0)],
)
def test_calibration_lets_exactly_the_allowed_number_exceed(rate, size, exceeding):
    values = np.random.default_rng(0).permutation(size) / size
    measure = PixelCorrelation()
    threshold = calibrate(measure, values, rate=rate, source="held-out")
    assert (values > threshold).sum() == exceeding
    assert measure.threshold == threshold


def test_calibration_finds_the_smallest_such_threshold():
    values = np.random.default_rng(0).random(200)
    threshold = calibrate(PixelCorrelation(), values, rate=0.01, source="held-out")
    assert (values > np.nextafter(threshold, -1)).sum() == 3  # one more than 1% of 200


def test_calibration_counts_ties_as_not_extracted():
    values = [0.9, 0.9, 0.9, 0.1]
    assert calibrate(PixelCorrelation(), values, rate=0.25, source="held-out") == 0.9


def test_calibration_is_told_in_the_report():
    measure = PixelCorrelation()
    calibrate(measure, [0.5, 0.6], rate=0.005, source="half of the held-out pictures")
    assert measure.threshold_source == (
        "half of the held-out pictures: at most 0.5% of n=2 extracted; "
        "95% interval of the threshold: 0.600 or higher"
    )


@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [float("inf")]])
def test_calibration_needs_finite_values(values):
    with pytest.raises(InputError, match="cannot calibrate 'correlation'"):
        calibrate(PixelCorrelation(), values, source="held-out")


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_an_impossible_rate_is_refused(rate):
    with pytest.raises(InputError, match=r"outside \[0, 1\)"):
        calibrate(PixelCorrelation(), [0.5], rate=rate, source="held-out")


def with_hits(*hits: int) -> np.ndarray:
    """Pictures that a model which always says 0 predicts at so many of the last four tokens."""
    pictures = np.full((len(hits), SIDE, SIDE, 3), 51, np.uint8)
    for picture, count in zip(pictures, hits, strict=True):
        picture[3, :count] = 0
    return pictures


def ranked(pictures: np.ndarray, labels: list[int], model: Parrot | None = None, **settings):
    images = Images.from_arrays(pictures, np.array(labels))
    return rank_candidates(model or Parrot({}), images, VIEWS, **settings)


def test_the_best_predicted_images_of_each_class_are_kept():
    found = ranked(with_hits(1, 4, 2, 0, 3, 1), [0, 0, 0, 1, 1, 1], per_class=2)
    assert found.images.ids.tolist() == [1, 2, 4, 5]
    assert found.hit_rate.tolist() == [1.0, 0.5, 0.75, 0.25]


def test_a_small_class_is_kept_whole_and_lends_nothing():
    found = ranked(with_hits(4, 4, 4, 0), [0, 0, 0, 1], per_class=2)
    assert found.images.labels.tolist() == [0, 0, 1]


def test_ties_go_to_the_smaller_image_id():
    assert ranked(with_hits(2, 2, 2), [0, 0, 0], per_class=2).images.ids.tolist() == [0, 1]


def test_ties_go_to_the_likelier_tokens_first():
    class Graded(Parrot):
        def logits(self, tokens, condition):
            logits = super().logits(tokens, condition)
            logits[..., 2] += 2.0  # the second guess, wrong but likelier than the others
            return logits

    pictures = with_hits(2, 2)
    pictures[1, 3, 2:] = 2 * 51  # misses that the model gives more probability
    found = ranked(pictures, [0, 0], Graded({}), per_class=1)
    assert found.images.ids.tolist() == [1]


def test_only_the_given_positions_count():
    pictures = with_hits(4, 0)
    pictures[1, 0] = 0  # right at the first four tokens
    assert ranked(pictures, [0, 0], per_class=1).images.ids.tolist() == [0]
    found = ranked(pictures, [0, 0], per_class=1, positions=range(4))
    assert found.images.ids.tolist() == [1]


def test_ranking_asks_for_the_true_label():
    model = Parrot({3: tokens_of(PICTURES[3])})
    assert ranked(PICTURES[3:4], [3], model).hit_rate.tolist() == [1.0]


def test_ranking_does_not_depend_on_the_batch():
    pictures = grey_pictures(20, seed=1)
    labels = [0, 1] * 10
    alone, together = (ranked(pictures, labels, batch_size=size) for size in (1, 20))
    assert alone.images.ids.tolist() == together.images.ids.tolist()


def test_the_last_scales_tokens_are_ranked_wherever_a_prompt_moves_their_positions():
    class Prompted(Parrot):
        layout = replace(Parrot.layout, predicting=range(2, 18))  # a prompt of three positions

    pictures, labels = with_hits(1, 4, 2, 0, 3, 1), [0, 0, 0, 1, 1, 1]
    found = ranked(pictures, labels, Prompted({}), per_class=2)
    assert found.images.ids.tolist() == [1, 2, 4, 5]
    assert found.hit_rate.tolist() == [1.0, 0.5, 0.75, 0.25]


def test_ranked_candidates_get_their_group():
    assert ranked(with_hits(1), [0], group="likely").group.tolist() == ["likely"]


@pytest.mark.parametrize("positions", [(), (16,), (-1,)])
def test_positions_outside_the_tokens_are_refused(positions):
    with pytest.raises(InputError, match="do not fit images of 16 tokens"):
        ranked(with_hits(1), [0], positions=positions)


def test_at_least_one_image_of_each_class_is_kept():
    with pytest.raises(InputError, match="per_class is 0"):
        ranked(with_hits(1), [0], per_class=0)


def test_a_model_whose_logits_are_not_finite_is_an_error():
    with pytest.raises(NonFiniteSimilarityError, match="the logits of 1 of 1"):
        ranked(with_hits(1), [0], Parrot({}, sure=float("nan")))
