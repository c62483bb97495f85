"""Both jobs run on a user's own official objects, and end in the numbers of ours."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from nnsight import save as nnsight_save

from iarmem_adapters.rar.tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from iarmem_adapters.rar.transformer import RARConfig, RARTransformer
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_plugin import (
    Arm,
    Candidates,
    ExtractionOptions,
    ImageARModel,
    Images,
    Random,
    Zero,
    localize,
    mitigate,
    plugins,
    wrap,
)
from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.evaluation.similarity import TokenAgreement
from iarmem_plugin.interfaces import Condition

SIDES = (1, 2, 4)
VAR = VARConfig(2, 16, 2, SIDES, num_classes=3, vocab_size=16, code_width=4)
VQVAE = VQVAEConfig(SIDES, ch=8, ch_mult=(1, 2), res_blocks=1, vocab_size=16, code_width=4)
RAR = RARConfig(2, 16, 2, 64, num_tokens=16, vocab_size=16, num_classes=3)
VQGAN = MaskGITVQGANConfig(ch=8, ch_mult=(1, 2), res_blocks=1, vocab_size=16, code_width=4)


@pytest.fixture(params=["var", "rar"])
def pair(
    request: pytest.FixtureRequest, standin: Callable[[str], ModuleType]
) -> tuple[ImageARModel, ImageARModel]:
    """One of ours, and the official object with the same weights, in training mode."""
    made = standin(request.param)
    torch.manual_seed(0)
    if request.param == "var":
        network, tokenizer = VARTransformer(VAR), MultiScaleVQVAE(VQVAE)
        vae = made.VQVAE(VQVAE)
        official = made.VAR(vae, VAR)
    else:
        network, tokenizer = RARTransformer(RAR), MaskGITVQGAN(VQGAN)
        vae = made.PretrainedTokenizer(VQGAN)
        official = made.RAR(RAR)
    with torch.no_grad():
        tokenizer.quantize.embedding.weight.normal_()
    vae.load_state_dict(tokenizer.state_dict())
    official.load_state_dict(network.state_dict())
    return wrap(network.eval(), tokenizer.eval()), wrap(official.train(), vae)


@pytest.fixture
def pictures() -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3), np.uint8)
    return Images.from_arrays(pixels, np.arange(5) % 3)


def scored(model: ImageARModel, pictures: Images) -> xr.Dataset:
    return localize(model, pictures, options=CaptureOptions(views=1, batch_size=2))


def test_localizing_gives_the_scores_of_ours(
    pair: tuple[ImageARModel, ImageARModel], pictures: Images
) -> None:
    expected, actual = (scored(model, pictures) for model in pair)
    for name in ("score", "mean_activation"):
        # the activations differ by rounding, 1e-5; a score divides by their size
        np.testing.assert_allclose(actual[name], expected[name], rtol=0, atol=1e-3)


def test_mitigating_gives_the_report_of_ours(
    pair: tuple[ImageARModel, ImageARModel], pictures: Images
) -> None:
    arm = Arm("random", Random(), Zero(), fraction=0.5, seed=1)
    groups = np.array(["some"] * len(pictures))
    reports = []
    for model in pair:
        reports.append(
            mitigate(
                model,
                scored(model, pictures),
                Candidates(pictures, groups),
                [arm],
                similarity=TokenAgreement(0.5),
                options=ExtractionOptions(prefix_tokens=1),
            )
        )
    ours, theirs = (report.extraction for report in reports)
    assert ours["tokens"].equals(theirs["tokens"])
    assert not ours["tokens"][0].equals(ours["tokens"][1])


def test_a_users_own_trace_reads_the_objects_own_modules(
    pair: tuple[ImageARModel, ImageARModel], pictures: Images
) -> None:
    _, model = pair
    pixels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    inputs = model.adapter.teacher_forced(model.tokenize(pixels), Condition.of(torch.tensor([1])))
    with model.borrowed(), model.trace(*inputs.args, **inputs.kwargs):
        means = nnsight_save(model.neurons())
        head = nnsight_save(model.get(model.layout.mlp.writes.path.format(block=1)).output)
    assert torch.equal(means, model.read_neurons(inputs))
    assert head.shape[2] == 16


def test_both_official_families_are_told_apart(pair: tuple[Any, Any]) -> None:
    network = pair[1].adapter.network
    names = plugins.names("adapter")
    found = [one for one in names if plugins.find("adapter", one).matches(network)]
    assert found == [pair[1].layout.family]
