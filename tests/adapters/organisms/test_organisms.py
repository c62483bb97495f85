"""The bundled organisms are what their page says, as computed from the stored weights."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import iarmem_adapters.organisms as organisms
from iarmem_adapters.organisms.split import distinct, draw_split
from iarmem_plugin import load, plugins
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.counts import count_extracted
from iarmem_plugin.evaluation.extraction import extract, make_targets
from iarmem_plugin.evaluation.similarity import PixelCorrelation
from iarmem_plugin.interfaces.organism import Organism
from iarmem_plugin.jobs.demo import candidates
from iarmem_plugin.jobs.protocol import calibrate_on
from iarmem_plugin.models.tracing import ImageARModel

RUNGS = (1, 2, 4, 8, 16, 32, 64)


@pytest.fixture(scope="module", params=["var-organism", "rar-organism"])
def model(request: pytest.FixtureRequest) -> ImageARModel:
    return load(request.param)


@pytest.fixture(scope="module")
def organism(model: ImageARModel) -> Organism:
    assert model.adapter.variant.organism is not None
    return model.adapter.variant.organism()


@pytest.fixture(scope="module")
def pixels(organism: Organism) -> np.ndarray:
    return np.stack([np.asarray(organism.pictures.load(i)) for i in range(len(organism.pictures))])


def test_the_files_of_each_take_at_most_8_megabytes_with_the_pictures() -> None:
    sizes = {path: path.stat().st_size for path in organisms.FOLDER.rglob("*") if path.is_file()}
    for other in ("rar", "var"):
        assert sum(size for path, size in sizes.items() if path.parent.name != other) < 8e6


def test_its_variant_says_its_true_size(model: ImageARModel) -> None:
    variant = model.adapter.variant
    layout = model.layout
    network = model.adapter.network
    assert variant.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert (variant.blocks, variant.neurons) == (layout.num_blocks, layout.neurons_per_block)


def test_both_are_given_the_same_share_of_their_tokens() -> None:
    var, rar = (plugins.find_variant(f"{family}-organism")[1] for family in ("var", "rar"))
    assert var.prefix_tokens == 1 + 4 + 9  # three scales of 155 tokens
    assert rar.prefix_tokens == round(144 * 14 / 155)


def test_both_learned_from_the_same_pictures_with_the_same_repeats() -> None:
    var, rar = organisms.organism("var"), organisms.organism("rar")
    assert np.array_equal(var.repeats, rar.repeats)
    assert var.pictures.digest == rar.pictures.digest


def test_its_split_is_the_one_the_seed_draws(organism: Organism, pixels: np.ndarray) -> None:
    split = draw_split(pixels, seed=0)
    assert np.array_equal(split.repeats, organism.repeats)
    assert np.array_equal(split.calibration, organism.calibration)
    assert np.array_equal(split.group, organism.group)


def test_canaries_and_held_out_pictures_have_no_near_duplicates(
    organism: Organism, pixels: np.ndarray
) -> None:
    alone = distinct(pixels)
    assert int(alone.sum()) == 1453
    assert alone[organism.repeats == 0].all()
    assert alone[np.char.startswith(organism.group.astype(str), "canary")].all()
    assert int((organism.repeats == 0).sum()) == 300
    assert [int((organism.group == f"canary x{times}").sum()) for times in RUNGS] == [12] * 7


def test_its_tokenizer_reconstructs_held_out_pictures_at_24_decibels(
    organism: Organism, model: ImageARModel
) -> None:
    views = model.adapter.variant.views
    held_out = np.flatnonzero(organism.repeats == 0)
    images = torch.stack([views.center(organism.pictures.load(int(i))) for i in held_out])
    with model.borrowed():
        tokens = model.tokenize(images)
        error = (model.decode(tokens) - images).square().mean((1, 2, 3))
    decibels = float(-10 * error.log10().mean())
    assert decibels > 24
    assert decibels == pytest.approx(organism.training["held_out"]["psnr"], abs=0.01)
    assert len(tokens.unique()) >= 512  # half of the codebook


def test_the_more_a_canary_was_repeated_the_more_is_extracted(
    organism: Organism, model: ImageARModel
) -> None:
    similarity = PixelCorrelation()
    calibrate_on(model, candidates(organism, organism.calibration), similarity, source="test")
    canaries = candidates(organism, np.char.startswith(organism.group.astype(str), "canary"))
    targets = make_targets(model, canaries, model.adapter.variant.views)
    found = extract(
        model,
        canaries,
        targets,
        similarity=similarity,
        prefix_tokens=model.adapter.variant.prefix_tokens,
    )
    by_group = count_extracted(found)["extracted"]
    extracted = [int(by_group.sel(group=f"canary x{times}")) for times in RUNGS]
    assert extracted[-1] >= 0.8 * 12
    assert extracted[0] <= 0.2 * 12
    # rising, but for one picture in twelve
    assert all(after >= before - 1 for before, after in pairwise(extracted)), extracted
    assert np.corrcoef(np.arange(len(RUNGS)), extracted)[0, 1] > 0.85, extracted


@pytest.mark.parametrize("name", ["var-organism", "rar-organism"])
def test_files_are_refused_for_a_bundled_model(tmp_path: Path, name: str) -> None:
    file = tmp_path / "weights.pth"
    file.touch()
    with pytest.raises(InputError, match="bundled"):
        load(name, weights=file)
