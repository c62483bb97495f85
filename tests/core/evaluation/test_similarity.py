from __future__ import annotations

import hashlib
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.networks.pictures import imagenet_normalised, resized
from iarmem_plugin.evaluation.similarity import (
    SSCD,
    PixelCorrelation,
    TokenAgreement,
    provide_similarities,
)
from iarmem_plugin.interfaces import Completion, Similarity

NO_TOKENS = torch.zeros(1, 0, dtype=torch.int64)


def pictures(count: int = 3, side: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def shown(images: torch.Tensor) -> Completion:
    return Completion(images, NO_TOKENS.expand(len(images), 0))


def correlation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return PixelCorrelation().compare(shown(first), shown(second))


def said(tokens: list[list[int]]) -> Completion:
    return Completion(torch.zeros(len(tokens), 3, 2, 2), torch.tensor(tokens))


def test_correlation_is_numpys_over_all_pixel_values():
    first, second = pictures(seed=1), pictures(seed=2)
    expected = [
        np.corrcoef(a.double().ravel(), b.double().ravel())[0, 1]
        for a, b in zip(first, second, strict=True)
    ]
    # 1e-7: the result is rounded to float32 once
    np.testing.assert_allclose(correlation(first, second), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "expected"), [(lambda x: x, 1), (lambda x: 0.2 + x / 2, 1), (lambda x: 1 - x, -1)]
)
def test_correlation_ignores_brightness_and_contrast_but_not_inversion(change, expected):
    images = pictures()
    # 1e-6: float32 rounding of the changed pixels
    assert correlation(change(images), images).tolist() == pytest.approx([expected] * 3, abs=1e-6)


def test_correlation_never_leaves_its_range():
    images = pictures(count=200)
    assert correlation(images, images).max() <= 1


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(0.5, 0.5, 1.0), (0.5, 0.6, 0.0), (1.0, None, 0.0), (None, 0.1, 0.0)],
)
def test_an_image_of_one_value_is_never_nan(first, second, expected):
    completion, target = (
        pictures(1) if value is None else torch.full((1, 3, 5, 5), value)
        for value in (first, second)
    )
    assert correlation(completion, target).tolist() == [expected]


def test_a_constant_image_does_not_disturb_its_neighbours():
    images = pictures()
    images[1] = 1.0
    assert correlation(images, pictures(seed=9))[0] == correlation(images[:1], pictures(seed=9)[:1])


def test_a_nan_in_an_image_stays_visible():
    images = pictures(1)
    images[0, 0, 0, 0] = torch.nan
    assert correlation(images, pictures(1)).isnan().all()


def test_correlation_refuses_images_of_another_size():
    with pytest.raises(InputError, match=r"\(3, 3, 5, 5\).*\(3, 3, 4, 4\)"):
        correlation(pictures(), pictures(side=4))


def test_token_agreement_is_the_share_of_equal_tokens():
    completion, target = said([[1, 2, 3, 4], [1, 1, 1, 1]]), said([[1, 2, 0, 4], [0, 0, 0, 0]])
    assert TokenAgreement().compare(completion, target).tolist() == [0.75, 0.0]


def test_token_agreement_refuses_another_number_of_tokens():
    with pytest.raises(InputError, match="tokens"):
        TokenAgreement().compare(said([[1, 2]]), said([[1, 2, 3]]))


@pytest.mark.parametrize("measure", [PixelCorrelation, TokenAgreement])
def test_the_default_threshold_says_that_nobody_calibrated_it(measure):
    assert "not calibrated" in measure().threshold_source
    assert (measure(0.5).threshold, measure(0.5).threshold_source) == (0.5, "given by the user")


class GeM(nn.Module):
    """A descriptor network of SSCD's kind: a trunk, generalized-mean pooling, a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 6, 8, stride=8)
        self.project = nn.Linear(6, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = self.trunk(images).clamp(min=1e-6).pow(3.0).mean(dim=(2, 3)).pow(1.0 / 3.0)
        return nn.functional.normalize(self.project(pooled), dim=1)


class Pixel(nn.Module):
    """Returns one mean per channel, so that similarities can be worked by hand."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


class NoDescriptor(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


def view(images: torch.Tensor, side: int = 320) -> torch.Tensor:
    return imagenet_normalised(resized(images, (side, side)))


def scripted(network: nn.Module, path):
    with warnings.catch_warnings():
        # the format SSCD is published in; torch deprecates writing it
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        torch.jit.save(torch.jit.script(network.eval()), path)
    return path


@pytest.fixture
def gem(tmp_path):
    torch.manual_seed(0)
    network = GeM()
    return network, scripted(network, tmp_path / "gem.torchscript.pt")


def test_sscd_is_one_for_the_same_picture(gem):
    similarity = SSCD(gem[1]).compare(shown(pictures()), shown(pictures()))
    # 1e-6: float32 rounding of a unit vector's length
    assert similarity.tolist() == pytest.approx([1.0] * 3, abs=1e-6)


def test_sscd_is_the_cosine_of_the_networks_descriptors(gem):
    network, path = gem
    first, second = pictures(side=32), pictures(side=32, seed=1)
    with torch.no_grad():
        expected = nn.functional.cosine_similarity(network(view(first)), network(view(second)))
    # 1e-5: scripted and plain modules may fuse float32 operations differently
    torch.testing.assert_close(
        SSCD(path).compare(shown(first), shown(second)), expected, atol=1e-5, rtol=0
    )


def test_sscd_normalises_colours_and_descriptors_itself(tmp_path):
    path = scripted(Pixel(), tmp_path / "pixel.pt")
    first = torch.tensor([1.0, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    second = torch.tensor([1.0, 1.0, 0.406]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    # by hand: (1 - mean) / std = 2.24891 (red), 2.42857 (green); the others 0
    cosine = 2.24891 / (2.24891**2 + 2.42857**2) ** 0.5
    # 1e-5: the constants above are rounded to five places
    assert SSCD(path).compare(shown(first), shown(second)).item() == pytest.approx(cosine, abs=1e-5)


def test_sscds_view_of_a_picture_is_torchvisions(tmp_path):
    from iarmem_plugin.evaluation.torchvision_ops import import_torchvision

    import_torchvision()
    from torchvision.transforms.v2 import functional as reference

    images = pictures(side=256)
    expected = reference.normalize(
        reference.resize(images, [320, 320], antialias=True),
        [0.485, 0.456, 0.406],
        [0.229, 0.224, 0.225],
    )
    # 1e-6: the same interpolation, float32 rounding of the normalisation
    torch.testing.assert_close(view(images), expected, atol=1e-6, rtol=0)


def test_sscd_does_not_depend_on_the_batch(gem):
    measure = SSCD(gem[1])
    first, second = pictures(4), pictures(4, seed=1)
    alone = [
        measure.compare(shown(a[None]), shown(b[None])).item()
        for a, b in zip(first, second, strict=True)
    ]
    # 1e-5: float32 sums in another order
    assert measure.compare(shown(first), shown(second)).tolist() == pytest.approx(alone, abs=1e-5)


def test_sscd_has_the_papers_threshold_and_says_whose_it_is(gem):
    assert SSCD(gem[1]).threshold == 0.75
    assert "DISC" in SSCD(gem[1]).threshold_source
    assert SSCD(gem[1], threshold=0.6).threshold_source == "given by the user"


def test_sscd_accepts_the_right_digest_in_any_case(gem):
    digest = hashlib.sha256(gem[1].read_bytes()).hexdigest()
    assert SSCD(gem[1], sha256=digest.upper()).sha256 == digest


def test_sscd_refuses_another_digest_before_running_the_file(gem):
    with pytest.raises(InputError, match=f"SHA-256 .* not {'0' * 64}"):
        SSCD(gem[1], sha256="0" * 64)


def test_sscd_names_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"no SSCD file at .*nowhere\.pt"):
        SSCD(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("content", [b"", b"not a network"])
def test_sscd_refuses_a_corrupt_file(tmp_path, content):
    (tmp_path / "bad.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.pt is not a TorchScript network"):
        SSCD(tmp_path / "bad.pt")


def test_sscd_refuses_bare_weights(tmp_path):
    torch.save(GeM().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InputError, match="not the one with bare weights"):
        SSCD(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    ("network", "message"),
    [(NoDescriptor(), "no descriptor"), (nn.Conv2d(1, 1, 3), "not a TorchScript network of 320")],
)
def test_sscd_refuses_a_network_of_another_kind(tmp_path, network, message):
    with pytest.raises(InputError, match=message):
        SSCD(scripted(network, tmp_path / "other.pt"))


def test_all_three_measures_are_provided_under_their_names():
    provided = list(provide_similarities())
    assert all(issubclass(measure, Similarity) for measure in provided)
    assert [measure.name for measure in provided] == ["correlation", "token-agreement", "sscd"]
