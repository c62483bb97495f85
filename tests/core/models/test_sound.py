"""What an adapter answers is compared with what it should: type, shape, range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iarmem_plugin import plugins
from iarmem_plugin.activations.settings import CaptureSettings
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.interfaces import Condition, Sampling
from iarmem_plugin.models.loading import wrap
from iarmem_plugin.models.provenance import model_provenance, weights_sha256
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.testing.tiny import PIXELS, TinyAdapter

TOLD = Condition.of([0, 1, 4, 2])
WHO = r"TinyAdapter\.{} of adapter 'tiny' of .* returned {}; expected {}"


def model_that(adapter: TinyAdapter, method: str, answer: Callable[..., Any]) -> ImageARModel:
    """Wrap an adapter one of whose methods answers something else."""
    setattr(adapter, method, answer)
    return ImageARModel(adapter)


@pytest.mark.parametrize(
    ("answer", "returned"),
    [
        (lambda images: images.flatten(), r"torch.float32 \[768\]"),
        (lambda images: torch.zeros(3, 21), r"torch.float32 \[3, 21\]"),
        (lambda images: [1, 2], "a list"),
    ],
)
def test_tokens_that_are_not_one_row_an_image_are_refused(
    adapter: TinyAdapter, answer: Callable[..., Any], returned: str
) -> None:
    model = model_that(adapter, "tokenize", answer)
    expected = WHO.format("tokenize", returned, r"\[image token ...\] of 4 images")
    with pytest.raises(PluginError, match=expected):
        model.tokenize(torch.rand(4, 3, PIXELS, PIXELS))


@pytest.mark.parametrize(
    ("change", "returned"),
    [
        (lambda images: images * 2 - 1, "values from -"),
        (lambda images: images * 255, "values from"),
        (lambda images: images[:, :, :4], r"torch.float32 \[4, 3, 4, 8\]"),
        (lambda images: (images * 255).byte(), "torch.uint8"),
        (lambda images: images[:3], r"torch.float32 \[3, 3, 8, 8\]"),
    ],
)
def test_decoded_images_of_another_kind_range_or_size_are_refused(
    adapter: TinyAdapter, tokens: Tensor, change: Callable[[Tensor], Tensor], returned: str
) -> None:
    decode = adapter.decode
    model = model_that(adapter, "decode", lambda tokens: change(decode(tokens)))
    with pytest.raises(PluginError, match=WHO.format("decode", f"{returned}.*", "floats in")):
        model.decode(tokens)


def test_values_are_looked_at_once_and_shapes_each_time(
    adapter: TinyAdapter, tokens: Tensor
) -> None:
    decode, scale = adapter.decode, [1.0]
    model = model_that(adapter, "decode", lambda tokens: decode(tokens) * scale[0])
    model.decode(tokens[:0])  # nothing to look at
    model.decode(tokens)
    scale[0] = 2.0
    assert float(model.decode(tokens).max()) > 1
    adapter.decode = lambda tokens: decode(tokens)[:, :2]  # type: ignore[method-assign]
    with pytest.raises(PluginError, match=r"decode .* returned torch.float32 \[4, 2, 8, 8\]"):
        model.decode(tokens)


@pytest.mark.parametrize(
    ("change", "returned"),
    [
        (lambda tokens: tokens[:, :20], r"torch.int64 \[4, 20\]"),
        (lambda tokens: tokens.float(), r"torch.float32 \[4, 21\]"),
        (lambda tokens: tokens[:2], r"torch.int64 \[2, 21\]"),
        (lambda tokens: (tokens + 1) % 16, "another prefix than it was given"),
    ],
)
def test_a_completion_that_is_none_of_its_prefix_is_refused(
    adapter: TinyAdapter, tokens: Tensor, change: Callable[[Tensor], Tensor], returned: str
) -> None:
    complete = adapter.complete
    model = model_that(adapter, "complete", lambda *told, **how: change(complete(*told, **how)))
    with pytest.raises(PluginError, match=WHO.format("complete", returned, ".*")):
        model.complete(tokens[:, :5], TOLD, Sampling())


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("logits", lambda output, tokens: output[:, 1:]),
        ("logits", lambda output, tokens: output.argmax(2)),
        ("predicted", lambda output, tokens: output),
        ("predicted", lambda output, tokens: (tokens == 0, output)),
        ("predicted", lambda output, tokens: (tokens[:, 1:] == 0, tokens.double())),
        ("predicted", lambda output, tokens: (tokens, tokens.double())),
    ],
)
def test_predictions_that_are_not_of_every_token_are_refused(
    adapter: TinyAdapter, tokens: Tensor, method: str, answer: Callable[..., Any]
) -> None:
    model = model_that(adapter, method, answer)
    with pytest.raises(PluginError, match=WHO.format(method, ".*", r".*\[4, 21\]")):
        getattr(model, method)(tokens, TOLD)


class WithEncoder(TinyAdapter):
    """A tiny model with a third module."""

    name = "tiny with an encoder"

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.encoder = nn.Sequential(nn.Linear(2, 2), nn.Dropout())

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {**super().modules, "text encoder": self.encoder}


def test_every_module_is_put_into_evaluation_mode_hashed_and_looked_at_for_nan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter = WithEncoder.make()
    model = ImageARModel(adapter)
    adapter.encoder[0].eval()
    with model.borrowed():
        assert [one.training for one in adapter.encoder.modules()] == [False] * 3
    assert [one.training for one in adapter.encoder.modules()] == [True, False, True]
    assert model_provenance(model)["text_encoder_sha256"] == weights_sha256(adapter.encoder)
    model.unwrap()
    with torch.no_grad():
        adapter.encoder[0].weight[0, 0] = torch.nan
    monkeypatch.setattr(plugins, "recognising", lambda network: WithEncoder)
    monkeypatch.setattr(WithEncoder, "from_model", lambda *_: adapter)
    with pytest.raises(InputError, match=r"the text encoder cannot be used: its weight '0.weight'"):
        wrap(adapter.network, adapter.tokenizer)


def test_a_run_goes_on_only_with_the_same_further_modules(pictures: Images) -> None:
    adapter = WithEncoder.make()
    model = ImageARModel(adapter)
    facts = dict.fromkeys(("augmentation", "views", "seed", "batch_size"))
    settings = [
        CaptureSettings.of_model(model, pictures, {**model_provenance(model), **facts})
        for _ in range(2)
        if nn.init.normal_(adapter.encoder[0].weight) is not None
    ]
    first, second = (one.to_dict() for one in settings)
    assert [key for key in first if first[key] != second[key]] == ["text_encoder_sha256"]


def test_parts_on_several_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = WithEncoder.make()
    adapter.encoder.to("meta")
    monkeypatch.setattr(plugins, "recognising", lambda network: WithEncoder)
    monkeypatch.setattr(WithEncoder, "from_model", lambda *_: adapter)
    with pytest.raises(InputError, match=r"\(the network on cpu, .*, the text encoder on meta\)"):
        wrap(adapter.network, adapter.tokenizer)


def test_the_empty_prefix_has_the_dtype_and_dims_of_tokens(adapter: TinyAdapter) -> None:
    encode = adapter.tokenize
    model = model_that(adapter, "tokenize", lambda images: encode(images)[..., None].bool())
    nothing = model.no_tokens(5)
    assert (nothing.dtype, nothing.shape) == (torch.bool, (5, 0, 1))
