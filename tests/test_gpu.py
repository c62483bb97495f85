"""What a CPU cannot tell: tokens, scores, edits, seeds, autocast, memory and ranks on a GPU."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import iarmem_plugin as iarmem
from iarmem_plugin import plugins
from iarmem_plugin.evaluation.candidates import centre_views
from iarmem_plugin.interfaces import Condition, Sampling
from iarmem_plugin.models.provenance import weights_sha256
from iarmem_plugin.plugins.create import create

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

ORGANISMS = ["var-organism", "rar-organism"]


def pictures(name: str, count: int) -> iarmem.Images:
    organism = plugins.find_variant(name)[1].organism
    assert organism is not None
    return organism().pictures.subset(range(count))


def at_full_size(name: str, dtype: torch.dtype) -> iarmem.ImageARModel:
    adapter = plugins.find_variant(name)[0]
    family = adapter.family()
    with torch.device("cuda"):
        parts = zip((family.transformer, family.tokenizer), family.configs(name), strict=True)
        network, tokenizer = (blueprint.build(config) for blueprint, config in parts)
    return iarmem.wrap(network.to(dtype), tokenizer)


def some_neurons(model: iarmem.ImageARModel) -> xr.DataArray:
    chosen = np.zeros((model.layout.num_blocks, model.layout.neurons_per_block), bool)
    chosen[:, ::3] = True
    return xr.DataArray(chosen, dims=("block", "neuron"))


def on_both(name: str, count: int) -> tuple[list[iarmem.ImageARModel], list[torch.Tensor]]:
    models = [iarmem.load(name, device=device) for device in ("cpu", "cuda")]
    images = pictures(name, count)
    seen = centre_views(images, models[0].adapter.variant.views, slice(0, count))
    return models, [model.tokenize(seen.to(model.device)).cpu() for model in models]


@pytest.mark.parametrize("name", ORGANISMS)
def test_the_tokens_are_those_of_a_cpu(name: str) -> None:
    """TF32 would change some: choices between near codes."""
    _, (here, there) = on_both(name, 128)
    share = (here == there).double().mean()
    print(f"\n{name}: {share:.5f} of the tokens are equal")
    assert share > 0.999


@pytest.mark.parametrize("name", ORGANISMS)
def test_the_scores_are_those_of_a_cpu(name: str) -> None:
    """Up to rounding, and to views of which a token differs."""
    options = iarmem.CaptureOptions(views=2)
    images = pictures(name, 32)
    here, there = (
        iarmem.localize(iarmem.load(name, device=device), images, options=options)["score"]
        for device in ("cpu", "cuda")
    )
    apart = abs(here - there)
    print(f"\n{name}: scores differ by at most {float(apart.max()):.2e}")
    assert float(apart.quantile(0.99)) < 1e-3


@pytest.mark.parametrize("name", ORGANISMS)
@pytest.mark.parametrize("scorer", ["difference-of-means", "gradient-weight", "weight-norm"])
def test_contrasts_are_those_of_a_cpu(name: str, scorer: str) -> None:
    """Up to rounding, and to pictures of which a token differs."""
    images = pictures(name, 48)
    sides = images.subset(range(24)), images.subset(range(24, 48))
    here, there = (
        iarmem.contrast(iarmem.load(name, device=device), *sides, scorer=scorer)["score"]
        for device in ("cpu", "cuda")
    )
    apart = float(abs(here - there).max() / here.std())
    print(f"\n{name}, {scorer}: scores differ by at most {apart:.2e} standard deviations")
    assert apart < 0.05


@pytest.mark.parametrize("name", ORGANISMS)
def test_a_contrast_is_taken_under_autocast_too(name: str) -> None:
    model, images = iarmem.load(name, device="cuda"), pictures(name, 48)
    sides = images.subset(range(24)), images.subset(range(24, 48))
    exact = iarmem.contrast(model, *sides)["score"]
    with torch.autocast("cuda", torch.bfloat16):
        rough = iarmem.contrast(model, *sides)["score"]
    correlation = float(xr.corr(exact, rough))
    print(f"\n{name}: under autocast the scores correlate by {correlation:.4f}")
    assert correlation > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype", "batch"),
    [
        ("var-d16", torch.float32, 16),
        ("var-d16", torch.bfloat16, 16),
        ("var-d30", torch.float32, 8),
        ("var-d30", torch.bfloat16, 8),
        ("var-d36", torch.bfloat16, 2),
        ("rar-b", torch.float32, 32),
        ("rar-xxl", torch.bfloat16, 32),
    ],
)
def test_gradient_weight_at_full_size(name: str, dtype: torch.dtype, batch: int) -> None:
    """Weights drawn at random; prints pictures a second and the peak memory."""
    model = at_full_size(name, dtype)
    side = model.adapter.variant.resolution
    noise = np.random.default_rng(0).integers(0, 256, (4 * batch, side, side, 3), np.uint8)
    images = iarmem.Images.from_arrays(noise, np.arange(4 * batch))
    halves = images.subset(range(2 * batch)), images.subset(range(2 * batch, 4 * batch))
    scorer = create("scorer", f"gradient-weight:batch_size={batch}")
    torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        scores = scorer.score(model, *halves)
        seconds.append(time.perf_counter() - begun)
    rate, peak = 4 * batch / np.median(seconds), torch.cuda.max_memory_allocated() / 2**30
    print(f"\n{name}, {dtype}, batch {batch}: {rate:.1f} images a second, {peak:.0f} GiB")
    assert np.isfinite(scores).all()
    assert scores.shape == (model.layout.num_blocks, model.layout.neurons_per_block)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["var-d16", "rar-b"])
def test_a_compiled_tokenizer_at_full_size(name: str) -> None:
    """Prints pictures a second with and without, and which share of the tokens stays."""
    model = at_full_size(name, torch.float32)
    pictures = torch.rand(64, 3, 256, 256, device="cuda", generator=torch.Generator("cuda"))
    found = {}
    for way in ("plain", "compiled"):
        if way == "compiled":
            model.adapter.compile_tokenizer()
        with model.borrowed():
            tokens = model.tokenize(pictures)
            model.decode(tokens)
            for task, given in ((model.tokenize, pictures), (model.decode, tokens)):
                torch.cuda.synchronize()
                begun = time.perf_counter()
                for _ in range(3):
                    task(given)
                torch.cuda.synchronize()
                rate = 3 * len(pictures) / (time.perf_counter() - begun)
                print(f"\n{name}, {way}: {task.__name__} {rate:.0f} images a second")
        found[way] = tokens
    share = (found["plain"] == found["compiled"]).double().mean()
    print(f"\n{name}: {share:.5f} of the tokens are equal when compiled")
    assert share > 0.99


@pytest.mark.parametrize("name", ORGANISMS)
def test_two_captures_are_identical(name: str) -> None:
    model, images = iarmem.load(name, device="cuda"), pictures(name, 40)
    first, second = (next(iarmem.capture(model, images, views=2)) for _ in "ab")
    xr.testing.assert_identical(first, second)


@pytest.mark.parametrize("name", ORGANISMS)
def test_both_backends_complete_alike_and_leave_no_trace(name: str) -> None:
    (_, model), (_, tokens) = on_both(name, 16)
    told = Condition.of(torch.zeros(16, dtype=torch.long))
    prefix = tokens.cuda()[:, : model.adapter.variant.prefix_tokens]
    before = weights_sha256(model)
    plain = model.complete(prefix, told, Sampling())
    done = []
    for backend in ("trace", "weights"):
        with iarmem.intervene(model, some_neurons(model), iarmem.Zero(), backend=backend) as edited:
            done.append(edited.complete(prefix, told, Sampling()))
    assert not torch.equal(done[0], plain)
    share = (done[0] == done[1]).double().mean()
    print(f"\n{name}: {share:.5f} of the tokens are equal between the backends")
    assert share > 0.99
    assert weights_sha256(model) == before
    assert torch.equal(model.complete(prefix, told, Sampling()), plain)


@pytest.mark.parametrize("name", ORGANISMS)
def test_an_image_is_drawn_alike_in_any_batch_and_the_generators_come_back(name: str) -> None:
    model = iarmem.load(name, device="cuda")
    told = Condition.of(torch.arange(6) % 3)
    empty = torch.empty(6, 0, dtype=torch.long, device="cuda")
    state = torch.cuda.get_rng_state()
    with model.borrowed():
        together = model.complete(empty, told, Sampling(greedy=False, seed=tuple(range(6))))
        alone = model.complete(empty[-1:], told[-1:], Sampling(greedy=False, seed=(5,)))
    share = (together[-1:] == alone).double().mean()
    print(f"\n{name}: {share:.5f} of the tokens are equal in another batch")
    assert torch.equal(torch.cuda.get_rng_state(), state)


@pytest.mark.parametrize("name", ORGANISMS)
def test_tokens_stay_and_edits_act_under_autocast(name: str) -> None:
    (_, model), (_, tokens) = on_both(name, 8)
    images = pictures(name, 8)
    seen = centre_views(images, model.adapter.variant.views, slice(0, 8)).cuda()
    told = Condition.of(torch.zeros(8, dtype=torch.long))
    with torch.autocast("cuda", torch.bfloat16), torch.no_grad():
        assert torch.equal(model.tokenize(seen).cpu(), tokens)
        plain = model.logits(tokens.cuda(), told)
        with iarmem.intervene(model, some_neurons(model), iarmem.Zero(), backend="weights"):
            edited = model.logits(tokens.cuda(), told)
        again = model.logits(tokens.cuda(), told)
    assert not torch.equal(edited, plain)
    assert torch.equal(again, plain)


def test_a_batch_that_does_not_fit_is_halved() -> None:
    model, images = iarmem.load("var-organism", device="cuda"), pictures("var-organism", 256)
    expected = torch.from_numpy(next(iarmem.capture(model, images, views=1, batch_size=256)).values)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 3e8 / total))
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = next(iarmem.capture(model, images, views=1, batch_size=256))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("do not fit in memory" in str(one.message) for one in said)
    assert torch.allclose(torch.from_numpy(found.values), expected, atol=1e-4)


def test_a_rank_of_torchrun_captures_with_nccl_and_a_second_one_has_no_gpu(tmp_path: Path) -> None:
    images = pictures("var-organism", 24)
    arrays = {"images": np.stack([np.asarray(images.load(n)) for n in range(24)])}
    np.savez(tmp_path / "pictures.npz", labels=np.asarray(images.labels), **arrays)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
    job = ["-m", "iarmem_plugin", "localize", "var-organism", "--views", "1", "--device", "cuda"]
    job += ["--images", str(tmp_path / "pictures.npz"), "--store", str(tmp_path / "kept.zarr")]
    for number in (1, 1 + torch.cuda.device_count()):
        out = ["--out", str(tmp_path / f"scores-{number}")]
        done = subprocess.run(
            [*command, str(number), *job, *out], capture_output=True, text=True, check=False
        )
        if number == 1:
            assert done.returncode == 0, done.stderr[-2000:]
            assert (tmp_path / "scores-1" / "scores.nc").is_file()
    assert done.returncode != 0
    assert "GPU" in done.stderr, done.stderr[-3000:]
