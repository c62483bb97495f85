"""FD-DINOv2: the class token of transformers' own forward, on pictures as Pillow resizes them."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.dinov2 import DinoV2, dinov2_view
from iarmem_plugin.evaluation.quality import TorchFidelity
from iarmem_plugin.plugins.create import check, create


@pytest.fixture
def folder(dinov2_folder: Path, tmp_path: Path) -> Path:
    """A copy of the network's folder, to spoil."""
    for file in dinov2_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.rand(count, 3, 24, 36, generator=torch.Generator().manual_seed(seed))
    return (drawn * 255).round() / 255


def by_pillow(images: torch.Tensor) -> np.ndarray:
    """Return pictures as Pillow's bicubic filter resizes them, 8 bit."""
    levels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    size, kind = (224, 224), Image.Resampling.BICUBIC
    return np.stack([Image.fromarray(one).resize(size, kind) for one in levels]).transpose(
        0, 3, 1, 2
    )


def test_the_feature_is_the_class_token_of_transformers_own_forward(dinov2_folder: Path) -> None:
    from transformers import Dinov2Model

    network = Dinov2Model.from_pretrained(dinov2_folder, local_files_only=True).eval()
    images = pictures(3)
    seen = dinov2_view((images * 255).round().byte())
    with torch.no_grad():
        expected = network(pixel_values=seen).last_hidden_state[:, 0]
    # 1e-6: float32, the same operations
    np.testing.assert_allclose(
        DinoV2(dinov2_folder).features([images]), expected, rtol=0, atol=1e-6
    )


def test_pictures_are_resized_as_by_pillow_and_normalised() -> None:
    images = pictures(2)
    deviation = np.array([0.229, 0.224, 0.225])[:, None, None]
    mean = np.array([0.485, 0.456, 0.406])[:, None, None]
    seen = dinov2_view((images * 255).round().byte()).double().numpy()
    levels = 255 * (seen * deviation + mean)
    # 1e-4: 8-bit levels, normalised in float32
    np.testing.assert_allclose(levels, by_pillow(images), rtol=0, atol=1e-4)


def test_values_are_labelled_fd_and_name_network_and_weights(dinov2_folder: Path) -> None:
    file = dinov2_folder / "model.safetensors"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    measure = DinoV2(file)
    count = measure.minimum
    one, other = (np.random.default_rng(seed).normal(size=(count, 8)) for seed in (0, 1))
    values = measure.compare(one, other, reference_name="held-out pictures")
    assert values[0].label == (
        f"FD (DINOv2 ViT-8/56 sha256 {digest[:12]}, reference held-out pictures n={count}, "
        f"generated n={count})"
    )
    plain = TorchFidelity(torch.nn.Identity(), "any").compare(one, other, reference_name="pictures")
    assert [value.value for value in values] == [value.value for value in plain]
    assert not any(value.label.startswith(("FID", "KID")) for value in values)
    settings = hashlib.sha256((dinov2_folder / "config.json").read_bytes()).hexdigest()
    assert measure.provenance["weights_sha256"] == digest
    assert measure.provenance["config_sha256"] == settings
    assert "224 x 224, Pillow's bicubic filter" in str(measure.provenance["resize"])
    assert repr(measure) == f"DinoV2('DINOv2 ViT-8/56 sha256 {digest[:12]}')"


def test_it_is_chosen_by_name_and_says_nothing(
    dinov2_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = f"fd-dinov2:weights={dinov2_folder}"
    assert check("quality", text) == {"fd-dinov2:weights": dinov2_folder}
    state = torch.get_rng_state()
    assert isinstance(create("quality", text, {"device": "cpu"}), DinoV2)
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no DINOv2 weights at .*model\.safetensors"):
        DinoV2(tmp_path)


def test_a_file_without_its_settings_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"settings .*config\.json cannot be read"):
        DinoV2(folder)


@pytest.mark.parametrize("settings", [{"model_type": "vit"}, {}, [], "dinov2"])
def test_another_type_of_network_is_refused(folder: Path, settings: object) -> None:
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="expected 'dinov2'"):
        DinoV2(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 16},
        {"hidden_size": "wide"},
        {"hidden_act": "nope"},
        {"patch_size": 0},
        {"num_hidden_layers": 3},
        {"num_hidden_layers": 1},
    ],
)
def test_settings_of_another_size_are_refused(
    folder: Path, change: dict[str, object], capfd: pytest.CaptureFixture[str]
) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | change))
    with pytest.raises(InputError, match=r"model\.safetensors holds (no|other) weights"):
        DinoV2(folder)
    assert capfd.readouterr() == ("", "")


class RunsCode:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (print, ("the file ran its own code",))


def test_pickled_weights_are_refused_and_not_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(RunsCode()))
    with pytest.raises(InputError, match=r"model\.safetensors holds no weights"):
        DinoV2(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="no DINOv2 weights"):
        DinoV2(folder)
    assert capsys.readouterr().out == ""


def test_half_precision_weights_are_run_in_float32(dinov2_folder: Path, folder: Path) -> None:
    file = folder / "model.safetensors"
    save_file({name: one.half() for name, one in load_file(file).items()}, file)
    exact, rounded = (DinoV2(one).features([pictures(2)]) for one in (dinov2_folder, folder))
    assert not np.array_equal(exact, rounded)
    # 0.01: weights of about 0.02 to 1 rounded to 11 bits
    np.testing.assert_allclose(rounded, exact, rtol=0, atol=0.01)


def test_without_transformers_the_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r'transformers.*pip install "iarmem\[transformers\]"'):
        DinoV2(folder)
