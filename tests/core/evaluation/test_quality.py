from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.quality import (
    TorchFidelity,
    frechet_distance,
    provide_qualities,
    to_uint8,
)
from iarmem_plugin.evaluation.statistics import kernel_distance
from iarmem_plugin.evaluation.torchvision_ops import import_torchvision
from iarmem_plugin.interfaces import Quality

FEATURES = 6


class Classifier(nn.Module):
    """A small fixed network on uint8 images, with a mode that changes its result."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        weights = torch.randn(FEATURES, 3 * 8 * 8, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weights", weights)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.dtype != torch.uint8:
            raise TypeError(images.dtype)
        return self.dropout(torch.relu(images.flatten(1).float() / 255 @ self.weights.T))


def pictures(count: int, *, seed: int, gain: float = 1.0) -> torch.Tensor:
    return gain * torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def gaussian(count: int, *, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (count, 5)) * np.arange(1, 6)


def independent_fid(first: np.ndarray, second: np.ndarray) -> float:
    s1, s2 = np.cov(first.T), np.cov(second.T)
    difference = first.mean(0) - second.mean(0)
    root = scipy.linalg.sqrtm(s1 @ s2)
    return float(difference @ difference + np.trace(s1 + s2 - 2 * root.real))


def independent_mmd(first: np.ndarray, second: np.ndarray) -> float:
    def kernel(a, b):
        return (a @ b.T / first.shape[1] + 1) ** 3

    def off_diagonal_mean(k):
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    return (
        off_diagonal_mean(kernel(first, first))
        + off_diagonal_mean(kernel(second, second))
        - 2 * kernel(first, second).mean()
    )


@pytest.fixture
def quality() -> TorchFidelity:
    return TorchFidelity(Classifier(), "small classifier")


def test_fid_equals_the_formula_with_scipys_matrix_square_root():
    first, second = gaussian(80, seed=0), gaussian(60, seed=1, shift=0.3)
    # 1e-9: eigenvalues and Schur's method agree to float64 rounding of a 5 x 5 product
    assert frechet_distance(first, second) == pytest.approx(
        independent_fid(first, second), rel=1e-9
    )


def test_fid_of_shifted_copies_is_the_squared_shift():
    features = gaussian(50, seed=0)
    # 1e-8: the square roots of equal covariances cancel only to rounding
    assert frechet_distance(features + 2.0, features) == pytest.approx(5 * 2.0**2, abs=1e-8)


def test_fid_of_one_feature_is_worked_by_hand():
    # means 1 and 4, variances (n - 1) 1 and 4: (4 - 1)^2 + (2 - 1)^2 = 10
    first, second = np.array([[0.0], [1.0], [2.0]]), np.array([[2.0], [4.0], [6.0]])
    assert frechet_distance(first, second) == pytest.approx(10.0, abs=1e-12)


@pytest.mark.parametrize("sizes", [(40, 40), (41, 27)])
def test_kid_equals_the_unbiased_estimate_over_all_pairs(sizes):
    first, second = gaussian(sizes[0], seed=0), gaussian(sizes[1], seed=1)
    # 1e-9: float64 sums in another order
    assert kernel_distance(first, second)[0] == pytest.approx(
        independent_mmd(first, second), rel=1e-9
    )


def test_kid_equals_torch_fidelitys_of_one_subset_of_everything():
    import_torchvision()
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    first, second = gaussian(40, seed=0), gaussian(40, seed=1)
    sides = (torch.from_numpy(first), torch.from_numpy(second))
    theirs = kid_features_to_metric(*sides, kid_subsets=1, kid_subset_size=40, verbose=False)
    assert kernel_distance(first, second)[0] == pytest.approx(theirs[KEY_METRIC_KID_MEAN], rel=1e-9)


def test_kids_error_leaves_out_every_tenth_image_of_both_sides():
    first, second = gaussian(43, seed=0), gaussian(35, seed=1)
    without = [
        independent_mmd(
            *(np.delete(side, slice(block, None, 10), axis=0) for side in (first, second))
        )
        for block in range(10)
    ]
    expected = np.sqrt(0.9 * np.square(without - np.mean(without)).sum())
    # 1e-9: float64 sums in another order
    assert kernel_distance(first, second)[1] == pytest.approx(expected, rel=1e-9)


def test_of_many_images_kid_takes_evenly_spaced_ones_and_says_so(quality, monkeypatch):
    for room in ("statistics", "quality"):
        monkeypatch.setattr(f"iarmem_plugin.evaluation.{room}.MOST", 20)
    first, second = gaussian(39, seed=0), gaussian(15, seed=1)
    kid = quality.compare(first, second, reference_name="pictures")[1]
    assert kid.value == pytest.approx(independent_mmd(first[::2], second), rel=1e-9)
    assert "generated n=39, all pairs of 20 images a side at most, error by" in kid.label


def test_kids_error_is_about_the_spread_over_draws():
    drawn = [
        kernel_distance(gaussian(80, seed=2 * seed), gaussian(80, seed=2 * seed + 1, shift=0.3))
        for seed in range(60)
    ]
    values, errors = np.array(drawn).T
    # 40%: 60 draws give their spread to 9%, ten blocks a single error to 24%, and it leans upwards
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.4)


def test_fid_equals_torch_fidelitys_own_run_on_the_same_pictures(quality):
    import_torchvision()
    import torch_fidelity

    class Registered(torch_fidelity.FeatureExtractorBase):
        def __init__(self, name, features_list, **kwargs):
            super().__init__(name, features_list)
            self.classifier = Classifier()

        get_provided_features_list = staticmethod(lambda: ("features",))
        get_default_feature_layer_for_metric = staticmethod(lambda metric: "features")
        can_be_compiled = staticmethod(lambda: False)

        def forward(self, images):
            return (self.classifier(images),)

    class Pictures(torch.utils.data.Dataset):
        def __init__(self, images):
            self.images = to_uint8(images)

        def __len__(self):
            return len(self.images)

        def __getitem__(self, index):
            return self.images[index]

    torch_fidelity.register_feature_extractor("small-test-classifier", Registered)
    generated, reference = pictures(64, seed=0), pictures(90, seed=1, gain=0.8)
    theirs = torch_fidelity.calculate_metrics(
        input1=Pictures(generated),
        input2=Pictures(reference),
        fid=True,
        feature_extractor="small-test-classifier",
        cuda=False,
        cache=False,
        save_cpu_ram=True,  # no worker processes
        verbose=False,
    )
    ours = quality.measure([generated], [reference], reference_name="test pictures")[0]
    # 1e-4: torch-fidelity averages features in float32, we in float64
    assert ours.value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)


def test_values_carry_their_whole_label(quality):
    fid, kid = quality.measure(
        [pictures(30, seed=0)], [pictures(40, seed=1)], reference_name="training pictures once each"
    )
    assert fid.label == (
        "FID (small classifier, reference training pictures once each n=40, generated n=30)"
    )
    assert kid.label == (
        "KID (small classifier, reference training pictures once each n=40, generated n=30, "
        "all pairs, error by 10 blocks)"
    )
    assert fid.n == kid.n == 30
    assert fid.error is None
    assert kid.error > 0


def test_other_pictures_are_further_than_like_ones(quality):
    reference = quality.features([pictures(60, seed=0)])
    like = quality.compare(
        quality.features([pictures(60, seed=1)]), reference, reference_name="pictures"
    )
    dark = quality.compare(
        quality.features([pictures(60, seed=1, gain=0.5)]), reference, reference_name="pictures"
    )
    assert all(near.value < far.value for near, far in zip(like, dark, strict=True))


def test_the_same_pictures_changed_between_two_calls_give_another_value(quality):
    # torch-fidelity's cache would return the first value again
    reference, images = [pictures(30, seed=0)], pictures(30, seed=1)
    first = quality.measure([images], reference, reference_name="pictures")[0].value
    second = quality.measure([images / 2], reference, reference_name="pictures")[0].value
    assert first != second


def test_batching_does_not_change_the_features(quality):
    images = pictures(30, seed=0)
    # 3e-5: 192 float32 products of size up to 4, summed in another order
    np.testing.assert_allclose(
        quality.features(images.split(7)), quality.features([images]), rtol=0, atol=3e-5
    )


def test_images_may_come_from_a_generator(quality):
    assert quality.features(pictures(5, seed=seed) for seed in range(3)).shape == (15, FEATURES)


def test_the_extractor_runs_in_eval_mode_and_comes_back_as_it_was():
    extractor = Classifier().train()
    extractor.dropout.eval()
    quality = TorchFidelity(extractor, "small classifier")
    extractor.dropout.train()
    features = quality.features([pictures(5, seed=0)])
    assert extractor.training
    assert extractor.dropout.training
    assert np.array_equal(features, quality.features([pictures(5, seed=0)]))  # no dropout


def test_the_extractors_mode_comes_back_after_an_error(quality):
    extractor = Classifier().train()
    quality = TorchFidelity(extractor, "small classifier")
    with pytest.raises(InputError):
        quality.features([pictures(5, seed=0, gain=2.0)])
    assert extractor.training


def test_eight_bits_are_rounded():
    values = torch.tensor([0.0, 0.9999, 1.0, 1.4 / 255]).view(4, 1, 1, 1).expand(4, 3, 1, 1)
    assert to_uint8(values)[:, 0, 0, 0].tolist() == [0, 255, 255, 1]


class Levels(nn.Module):
    """Returns the first value of each image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0, 0, :1].float()


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_every_level_of_eight_bits_comes_back_in_every_precision(dtype):
    levels = torch.arange(256)
    images = (levels.double() / 255).to(dtype).view(256, 1, 1, 1).expand(256, 3, 2, 2)
    found = TorchFidelity(Levels(), "levels").features([images])
    assert found[:, 0].tolist() == levels.tolist()


@pytest.mark.parametrize("value", [-0.01, 1.5, float("nan")])
def test_images_outside_the_unit_interval_are_refused(value):
    images = pictures(2, seed=0)
    images[1, 0, 0, 0] = value
    with pytest.raises(InputError, match=r"RGB in \[0, 1\]"):
        to_uint8(images)


@pytest.mark.parametrize(("generated", "reference"), [(9, 40), (40, 9), (1, 40)])
def test_too_few_images_are_refused(quality, generated, reference):
    with pytest.raises(InputError, match=r"are too few: KID's error .* 10 images"):
        quality.measure(
            [pictures(generated, seed=0)], [pictures(reference, seed=1)], reference_name="pictures"
        )


def test_no_images_are_refused(quality):
    with pytest.raises(InputError, match="no images"):
        quality.features([])


def test_an_extractor_that_returns_no_rows_is_refused():
    quality = TorchFidelity(nn.Identity(), "identity")
    with pytest.raises(InputError, match=r"identity does not return features"):
        quality.features([pictures(3, seed=0)])


def test_features_that_are_not_finite_are_refused():
    extractor = Classifier()
    extractor.weights[0] = torch.inf
    with pytest.raises(InputError, match="not finite"):
        TorchFidelity(extractor, "broken").features([pictures(3, seed=0)])


class AllButBlack(nn.Module):
    """Returns NaN for black images, and draws at random."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        torch.rand(3), np.random.random()
        values = images.flatten(1).float()[:, :2]
        return torch.where(values.any(dim=1, keepdim=True), values, torch.nan)


def test_the_first_image_whose_features_are_not_finite_is_named():
    batches = [pictures(3, seed=0), torch.cat((pictures(1, seed=1), torch.zeros(1, 3, 8, 8)))]
    with pytest.raises(InputError, match="for 1 of 5 images, first for number 4"):
        TorchFidelity(AllButBlack(), "not black").features(batches)


def test_an_extractor_that_draws_leaves_every_generator_as_it_was():
    state, drawn = torch.get_rng_state(), str(np.random.get_state())
    TorchFidelity(AllButBlack(), "not black").features([pictures(3, seed=0)])
    assert torch.equal(torch.get_rng_state(), state)
    assert str(np.random.get_state()) == drawn


def test_a_measure_is_shown_as_text(quality):
    assert repr(quality) == "TorchFidelity('small classifier')"


def test_an_extractor_must_be_a_module():
    with pytest.raises(InputError, match=r"torch\.nn\.Module"):
        TorchFidelity(lambda images: images, "function")


def test_provenance_names_tool_and_settings(quality):
    assert quality.provenance["tool"].startswith("torch-fidelity 0.")
    assert quality.provenance["uint8_rule"] == "times 255, rounded"
    assert quality.provenance["kid"].startswith("all pairs of 20000 images a side at most; error")


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory):
    """Weights of the right names and shapes, drawn at random."""
    import_torchvision()
    from torch_fidelity.feature_extractor_inceptionv3 import (
        FeatureExtractorInceptionV3 as Inception,
    )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url",
            lambda *args, **kwargs: {},
        )
        patch.setattr(Inception, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        inception = Inception("inception-v3-compat", ["2048"])
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(inception.state_dict(), path)
    return inception, path


def test_inception_is_loaded_from_the_users_file(inception_weights):
    inception, path = inception_weights
    quality = TorchFidelity(path, "Inception v3")
    images = pictures(2, seed=0)
    expected = inception(to_uint8(images))[0].double().numpy()
    assert np.array_equal(quality.features([images]), expected)


def test_inceptions_label_names_the_weights(inception_weights):
    import hashlib

    digest = hashlib.sha256(inception_weights[1].read_bytes()).hexdigest()
    quality = TorchFidelity(inception_weights[1], "Inception v3")
    assert quality.extractor_name == f"Inception v3 sha256 {digest[:12]}"
    assert quality.provenance["weights_sha256"] == digest


class RunsCode:
    def __reduce__(self):
        return (print, ("the file ran its own code",))


@pytest.mark.parametrize(
    "content", [{"fc.weight": torch.zeros(2, 2)}, [1, 2], {"a": 1}, {"fc.weight": RunsCode()}]
)
def test_a_file_without_inceptions_weights_is_refused(tmp_path, content, capsys):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"weights\.pth holds no"):
        TorchFidelity(tmp_path / "weights.pth", "Inception v3")
    assert capsys.readouterr().out == ""  # nothing from the file was run


@pytest.mark.parametrize("content", [b"", b"garbage", b"hello", b"0", b"G"])
def test_a_corrupt_file_is_refused(tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(InputError, match="holds no Inception weights"):
        TorchFidelity(tmp_path / "weights.pth", "Inception v3")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no Inception weights at .*nowhere\.pth"):
        TorchFidelity(tmp_path / "nowhere.pth", "Inception v3")


def test_the_measure_is_provided_under_its_name():
    (provided,) = provide_qualities()
    assert issubclass(provided, Quality)
    assert provided.name == "fid"
