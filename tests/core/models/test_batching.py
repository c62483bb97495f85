"""Batches that do not fit in memory: smaller ones, the same results, a model left intact."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import xarray as xr
from rich.console import Console
from rich.progress import Progress
from torch import nn

from iarmem_plugin.activations.capture import capture
from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import BatchMemoryError, IarmemError, InputError
from iarmem_plugin.evaluation.extraction import Candidates, extract, make_targets, rank_candidates
from iarmem_plugin.evaluation.generation import generate
from iarmem_plugin.evaluation.quality import TorchFidelity
from iarmem_plugin.evaluation.similarity import TokenAgreement
from iarmem_plugin.interfaces import Condition, Sampling
from iarmem_plugin.models.batching import Batching, is_out_of_memory
from iarmem_plugin.models.tracing import ImageARModel, wrapped
from iarmem_plugin.testing.tiny import TinyAdapter

CPU_MESSAGE = (
    "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 4398046511104 bytes. Error code 12 (Cannot allocate memory)"
)
ERRORS = [MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(CPU_MESSAGE)]


def holds(rows: int, error: BaseException = ERRORS[2]) -> Callable[..., None]:
    """Make a hook for a module that runs out of memory above so many images."""

    def check(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > rows:
            raise error

    return check


def limited(rows: int, error: BaseException, tried: list[int]) -> Callable[[slice], list[int]]:
    def work(part: slice) -> list[int]:
        tried.append(part.stop - part.start)
        if part.stop - part.start > rows:
            raise error
        return list(range(part.start, part.stop))

    return work


@pytest.mark.parametrize("error", ERRORS, ids=["MemoryError", "GPU", "CPU"])
def test_a_batch_that_does_not_fit_is_halved_said_once_and_stays_halved(
    error: BaseException,
) -> None:
    tried: list[int] = []
    batching = Batching(16)
    with pytest.warns(RuntimeWarning) as said:
        done = list(batching.over(20, limited(5, error, tried)))
    assert [image for part in done for image in part] == list(range(20))
    assert tried == [16, 8, 4, 4, 4, 4, 4]
    assert [str(one.message) for one in said] == [
        "16 images at once do not fit in memory; going on with 4"
    ]


def test_the_next_call_starts_from_what_fitted() -> None:
    tried: list[int] = []
    batching = Batching(8)
    with pytest.warns(RuntimeWarning, match="going on with 4"):
        list(batching.over(8, limited(4, MemoryError(), tried)))
    tried.clear()
    list(Batching.of(batching).over(8, limited(4, MemoryError(), tried)))
    assert tried == [4, 4]


def test_a_short_last_batch_that_does_not_fit_is_halved_itself() -> None:
    tried: list[int] = []
    with pytest.warns(RuntimeWarning, match="3 images .* with 1$"):
        list(Batching(64).over(3, limited(2, MemoryError(), tried)))
    assert tried == [3, 1, 1, 1]


def test_one_image_that_does_not_fit_ends_in_a_plain_error() -> None:
    with pytest.raises(BatchMemoryError, match=r"one image.*smaller model") as error:
        list(Batching(4).over(4, limited(0, MemoryError(), [])))
    assert isinstance(error.value, IarmemError)


def test_other_errors_are_not_tried_again() -> None:
    tried: list[int] = []
    with pytest.raises(RuntimeError, match="shapes"):
        list(Batching(4).over(4, limited(0, RuntimeError("shapes do not match"), tried)))
    assert tried == [4]


def test_what_torch_itself_raises_is_recognised() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**52, dtype=torch.uint8)  # 4 PiB
    assert is_out_of_memory(error.value)


def test_the_bar_ends_at_the_number_of_images() -> None:
    with Progress(console=Console(file=io.StringIO())) as progress, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # tested above
        list(Batching(4).over(7, limited(2, MemoryError(), []), progress=progress))
        assert [task.completed for task in progress.tasks] == [7]


def test_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="no images"):
        list(Batching(4).over(0, limited(4, MemoryError(), [])))


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="1 or more, got 0"):
        Batching(0)


@pytest.fixture
def model(adapter: TinyAdapter) -> Iterator[ImageARModel]:
    with wrapped(adapter) as model:
        yield model


@pytest.mark.parametrize("place", ["network.blocks.1.ffn.act", "network", "tokenizer.encoder"])
def test_capture_gives_the_same_in_the_batches_that_fit(
    adapter: TinyAdapter, model: ImageARModel, pictures: Images, shifts: Views, place: str
) -> None:
    def captured() -> xr.DataArray:
        batches = capture(model, pictures, views=2, batch_size=4, augmentation=shifts)
        return xr.concat(list(batches), "image")

    expected = captured()
    part, _, path = place.partition(".")
    handle = getattr(adapter, part).get_submodule(path).register_forward_pre_hook(holds(2))
    with pytest.warns(RuntimeWarning, match="4 images at once .* with 2$"):
        actual = captured()
    handle.remove()
    np.testing.assert_allclose(actual, expected, atol=2e-6)  # float32 rounding by batch shape
    assert np.array_equal(captured(), expected)  # and the model is as it was


DRAWN = Sampling(greedy=False, guidance=1.5, top_k=8, seed=3)


@pytest.mark.parametrize("sampling", [Sampling(), DRAWN], ids=["greedy", "drawn and guided"])
def test_completions_are_the_same_in_the_batches_that_fit(
    adapter: TinyAdapter, model: ImageARModel, pictures: Images, sampling: Sampling
) -> None:
    candidates = Candidates(pictures, np.full(len(pictures), "any"))
    targets = make_targets(model, candidates, Views(crop=8))
    batching = Batching(7)

    def completed() -> xr.Dataset:
        return extract(
            model,
            candidates,
            targets,
            similarity=TokenAgreement(),
            prefix_tokens=5,
            sampling=sampling,
            batch_size=batching,
        )

    expected = completed()
    rows = 3 if sampling.guidance == 0 else 7  # guidance doubles the rows
    handle = adapter.network.blocks[2].register_forward_pre_hook(holds(rows))
    with pytest.warns(RuntimeWarning, match="7 images at once .* with 3$"):
        actual = completed()
    assert np.array_equal(actual["tokens"], expected["tokens"])
    assert actual.attrs["batch_size"] == 3
    assert np.array_equal(completed()["tokens"], expected["tokens"])  # said once; it would raise
    handle.remove()


def test_targets_and_candidates_are_the_same_in_the_batches_that_fit(
    adapter: TinyAdapter, model: ImageARModel, pictures: Images
) -> None:
    candidates = Candidates(pictures, np.full(len(pictures), "any"))
    views = Views(crop=8)
    targets = make_targets(model, candidates, views)
    ranked = rank_candidates(model, pictures, views)
    adapter.tokenizer.encoder.register_forward_pre_hook(holds(4))
    with pytest.warns(RuntimeWarning, match="7 images at once .* with 3$"):
        assert torch.equal(make_targets(model, candidates, views).tokens, targets.tokens)
    with pytest.warns(RuntimeWarning, match="7 images at once .* with 3$"):
        again = rank_candidates(model, pictures, views)
    assert np.array_equal(again.images.ids, ranked.images.ids)


def test_generated_images_are_the_same_in_the_batches_that_fit(
    adapter: TinyAdapter, model: ImageARModel
) -> None:
    labels = np.arange(5)
    expected = torch.cat(list(generate(model, Condition.of(labels), DRAWN)))
    adapter.tokenizer.decoder.register_forward_pre_hook(holds(2))
    with pytest.warns(RuntimeWarning, match="5 images at once .* with 2$"):
        actual = torch.cat(list(generate(model, Condition.of(labels), DRAWN)))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)  # float32 by batch shape


def test_features_are_the_same_in_the_batches_that_fit() -> None:
    extractor = nn.Sequential(nn.Flatten(), _Floats())
    images = [torch.rand(4, 3, 2, 2), torch.rand(3, 3, 2, 2)]
    expected = TorchFidelity(extractor, "pixels").features(images)
    extractor.register_forward_pre_hook(holds(2))
    with pytest.warns(RuntimeWarning, match="4 images at once .* with 2$"):
        assert np.array_equal(TorchFidelity(extractor, "pixels").features(images), expected)


class _Floats(nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.float()


def test_a_batching_is_shown_with_its_size() -> None:
    assert repr(Batching(32)) == "Batching(32)"
