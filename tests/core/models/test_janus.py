"""A family from elsewhere that is gated, told captions, and predicts behind a prompt: Janus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from iarmem_plugin import Condition, ForwardInputs, ImageARModel, Sampling
from iarmem_plugin.evaluation.torchvision_ops import import_torchvision
from iarmem_plugin.models.tracing import wrapped
from iarmem_plugin.testing import AdapterTests

if TYPE_CHECKING:
    from transformers import JanusForConditionalGeneration

    from .janus_adapter import JanusAdapter

CODES, SIDE = 24, 4
TOLD = Condition.of([-1] * 3, text=["a cat", "a dog", "an eel in a river"])


@pytest.fixture
def janus() -> JanusForConditionalGeneration:
    import_torchvision()  # which transformers imports
    from transformers import JanusConfig, JanusForConditionalGeneration

    text = {"vocab_size": 259, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64}
    pictures = {"image_size": 2 * SIDE, "patch_size": 2, "num_image_tokens": SIDE**2}
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    codes = {"num_embeddings": CODES, "image_token_embed_dim": 32, "latent_channels": 8}
    layers = {"base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1}
    config = JanusConfig(
        text_config={**text, **heads, "model_type": "llama"},
        vision_config={**pictures, **small, "projection_dim": 32},
        vq_config={**codes, **layers, "projection_dim": 32},
        image_token_id=258,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = JanusForConditionalGeneration(config).eval()
        for module in model.modules():  # weights as transformers draws them tell nothing apart
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear | torch.nn.Embedding):
                module.reset_parameters()
    return model


@pytest.fixture
def adapter(janus: JanusForConditionalGeneration) -> JanusAdapter:
    from .janus_adapter import JanusAdapter

    return JanusAdapter.from_model(janus, None)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(CODES, (3, SIDE**2), generator=torch.Generator().manual_seed(1))


class TestJanus(AdapterTests):
    @pytest.fixture
    def adapter(self, adapter: JanusAdapter) -> JanusAdapter:
        return adapter


def test_the_kit_names_guidance_that_is_none(
    adapter: JanusAdapter, tokens: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    law = TestJanus().test_law_7_guidance_goes_from_the_model_that_is_told_nothing
    law(adapter, tokens, TOLD)
    kind, inputs, step = type(adapter), type(adapter).inputs, type(adapter).step

    def always_told(self: Any, *given: Any, unconditional: bool = False) -> ForwardInputs:
        return inputs(self, *given)

    def other_steps(self: Any, told: Any, tokens: Any, *, unconditional: bool = False) -> Any:
        return step(self, told, tokens.flip(1) if unconditional else tokens)

    monkeypatch.setattr(kind, "inputs", always_told)
    with pytest.raises(AssertionError, match="still depends on the condition"):
        law(adapter, tokens, TOLD)
    monkeypatch.setattr(kind, "inputs", inputs)
    monkeypatch.setattr(kind, "step", other_steps)
    with pytest.raises(AssertionError, match="of a guided completion"):
        law(adapter, tokens, TOLD)


@pytest.mark.parametrize("guidance", [1.5, 4.0])
def test_it_generates_what_the_released_class_does(
    janus: JanusForConditionalGeneration, adapter: JanusAdapter, guidance: float
) -> None:
    from .janus_adapter import BEGIN, IMAGE, NOTHING, prompts

    ids = prompts(TOLD.text or ())
    special = {"bos_token_id": BEGIN, "pad_token_id": NOTHING, "eos_token_id": None}
    janus.generation_config.update(**special)
    janus.generation_config.generation_kwargs = {"boi_token_id": IMAGE}
    expected = janus.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        generation_mode="image",
        do_sample=False,
        guidance_scale=1 + guidance,
    )
    with wrapped(adapter) as model, model.borrowed():
        found = model.complete(expected[:, :0], TOLD, Sampling(guidance=guidance))
    assert torch.equal(found, expected)
    assert len(found.unique(dim=0)) == 3  # the captions are told


def test_neurons_are_those_of_the_image_behind_the_prompt(
    janus: JanusForConditionalGeneration, adapter: JanusAdapter, tokens: torch.Tensor
) -> None:
    seen: list[torch.Tensor] = []
    last = janus.model.language_model.layers[-1].mlp.down_proj
    handle = last.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with wrapped(adapter) as model, model.borrowed():
        model.logits(tokens, TOLD)
        handle.remove()
        found = model.read_neurons(adapter.teacher_forced(tokens, TOLD))
    (read,) = seen
    assert read.shape[1] == 1 + 9 + 1 + SIDE**2 - 1  # begin, caption, image begins, tokens
    assert torch.equal(found[:, -1, 0], read[:, -1].abs())


def test_the_whole_model_can_be_handed_over(
    janus: JanusForConditionalGeneration, adapter: JanusAdapter
) -> None:
    assert type(adapter).matches(janus)
    assert isinstance(ImageARModel(adapter).adapter, type(adapter))
    assert adapter.network is janus.model
