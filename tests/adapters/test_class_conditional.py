"""What every class-conditional adapter does, whoever built its networks."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from iarmem_adapters.class_conditional import ClassConditionalAdapter
from iarmem_adapters.rar.adapter import RARAdapter
from iarmem_adapters.rar.tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from iarmem_adapters.rar.transformer import RARConfig, RARTransformer
from iarmem_adapters.var.adapter import VARAdapter
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_plugin import LearnedEmbedding, wrap
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Condition, Sampling
from iarmem_plugin.models.tracing import wrapped

CLASSES = 3
SIDES = (1, 2, 4)
VAR = VARConfig(2, 16, 2, SIDES, num_classes=CLASSES, vocab_size=16, code_width=4)
VQVAE = VQVAEConfig(SIDES, ch=8, ch_mult=(1, 2), res_blocks=1, vocab_size=16, code_width=4)
RAR = RARConfig(2, 16, 2, 24, num_tokens=16, vocab_size=16, num_classes=CLASSES)
VQGAN = MaskGITVQGANConfig(ch=8, ch_mult=(1, 2), res_blocks=1, vocab_size=16, code_width=4)


@pytest.fixture(params=["our var", "our rar", "official var", "official rar"])
def adapter(
    request: pytest.FixtureRequest, standin: Callable[[str], ModuleType]
) -> ClassConditionalAdapter:
    """An adapter for pictures of 8x8 pixels."""
    torch.manual_seed(0)
    if request.param == "our var":
        return VARAdapter.from_model(VARTransformer(VAR).eval(), MultiScaleVQVAE(VQVAE).eval())
    if request.param == "our rar":
        return RARAdapter.from_model(RARTransformer(RAR).eval(), MaskGITVQGAN(VQGAN).eval())
    made = standin(request.param.removeprefix("official "))
    if request.param == "official var":
        return VARAdapter.from_model(made.VAR(made.VQVAE(VQVAE), VAR), None)
    return RARAdapter.from_model(made.RAR(RAR), made.PretrainedTokenizer(VQGAN))


@pytest.fixture
def tokens(adapter: ClassConditionalAdapter) -> Tensor:
    return adapter.tokenize(torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("size", [(8, 16), (16, 16), (4, 4), (6, 8)])
def test_pictures_of_another_size_are_refused(
    adapter: ClassConditionalAdapter, size: tuple[int, int]
) -> None:
    given = "x".join(map(str, size))
    with pytest.raises(InputError, match=f"got images of {given} pixels, expected 8x8: resize"):
        adapter.tokenize(torch.zeros(1, 3, *size))


@pytest.mark.parametrize("label", [-2, CLASSES])
def test_labels_outside_the_classes_are_refused(
    adapter: ClassConditionalAdapter, tokens: Tensor, label: int
) -> None:
    labels = torch.tensor([0, label, 1])
    with pytest.raises(InputError, match="the model has the classes 0 to 2"):
        adapter.teacher_forced(tokens, Condition.of(labels))
    with pytest.raises(InputError, match="the model has the classes 0 to 2"):
        adapter.complete(tokens[:, :0], Condition.of(labels), Sampling())


def test_too_few_tokens_are_refused(adapter: ClassConditionalAdapter, tokens: Tensor) -> None:
    total = tokens.shape[1]
    with pytest.raises(InputError, match=f"got {total - 1} tokens an image, expected {total}"):
        adapter.teacher_forced(tokens[:, 1:], Condition.of(torch.tensor([0, 1, 2])))


def test_a_prefix_longer_than_an_image_is_refused(
    adapter: ClassConditionalAdapter, tokens: Tensor
) -> None:
    longer = torch.cat((tokens, tokens[:, :1]), dim=1)
    with pytest.raises(InputError, match=f"got .*{longer.shape[1]} tokens, expected"):
        adapter.complete(longer, Condition.of(torch.tensor([0, 1, 2])), Sampling())


def test_an_adapter_tells_the_weights_of_its_own_networks(
    adapter: ClassConditionalAdapter,
) -> None:
    parts = (adapter.network, adapter.tokenizer)
    fits = [[one.fits(part.state_dict()) for part in parts] for one in adapter.signatures()]
    assert fits == [[True, False], [False, True]]


def test_logits_without_a_class_are_those_that_guide_a_completion(
    adapter: ClassConditionalAdapter, tokens: Tensor
) -> None:
    condition = Condition.of([0, 1, 2])
    var = isinstance(adapter, VARAdapter)  # its last scale, of 16 tokens, is guided in full
    sampling = Sampling(guidance=3.0, guidance_power=0.0)
    with wrapped(adapter) as model, model.borrowed():
        completed = model.complete(tokens[:, : 5 if var else 12], condition, sampling)
        told = model.logits(completed, condition)
        untold = model.logits(completed, condition.without_class())
    assert not torch.allclose(told, untold)
    guided = untold + (4.0 if var else 3.0) * (told - untold)
    start = 5 if var else 12
    assert torch.equal(guided.argmax(2)[:, start:], completed[:, start:])


def test_no_class_may_be_told_of_some_images_in_teacher_forcing_alone(
    adapter: ClassConditionalAdapter, tokens: Tensor
) -> None:
    some = Condition.of([2, -1, 0])
    with wrapped(adapter) as model, model.borrowed():
        whole, part = model.logits(tokens, some), model.logits(tokens, Condition.of([2, 1, 0]))
        untold = model.logits(tokens, some.without_class())
        torch.testing.assert_close(whole[::2], part[::2])
        torch.testing.assert_close(whole[1], untold[1])
        with pytest.raises(InputError, match="the label -1 is told"):
            model.complete(tokens[:, :0], some, Sampling())
        with pytest.raises(InputError, match="the label -2 is told"):
            model.logits(tokens, Condition.of([-2, -1, 0]))


def classes_beside(adapter: ClassConditionalAdapter, told: Tensor, meant: Tensor) -> Tensor:
    """Return what turns the embeddings of some classes into those of others."""
    embedding, first = adapter.driver.classes
    return (embedding(meant + first) - embedding(told + first)).detach()


@pytest.mark.parametrize("guidance", [0.0, 3.0])
def test_the_difference_of_two_embeddings_makes_one_class_the_other(
    adapter: ClassConditionalAdapter, guidance: float
) -> None:
    """In every place where the class is read, in images of one class, and in guided ones."""
    told, meant = torch.tensor([1, 1, 1, 0]), torch.tensor([1, 2, 0, 2])
    tokens = torch.randint(16, (4, adapter.driver.num_tokens))
    sampling, begun = Sampling(guidance=guidance), tokens[:, :5]
    with wrapped(adapter) as model, model.borrowed():
        expected = model.logits(tokens, Condition.of(meant))
        completed = model.complete(begun, Condition.of(meant), sampling)
        with adapter.condition_embedding(classes_beside(adapter, told, meant)):
            found = model.logits(tokens, Condition.of(told))
            assert torch.equal(model.complete(begun, Condition.of(told), sampling), completed)
        plain = model.logits(tokens, Condition.of(told))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(plain[1], expected[1], rtol=1e-3, atol=1e-4)


def test_a_learned_embedding_brings_a_picture_of_a_users_model_nearer(
    adapter: ClassConditionalAdapter,
) -> None:
    """Also of an official object, through `wrap`, which holds its own tokenizer or is given one."""
    own = getattr(adapter.network, "vae_proxy", None) is not None
    model = wrap(adapter.network, None if own else adapter.tokenizer)
    tokens = torch.randint(16, (3, adapter.driver.num_tokens))
    told = Condition.of(torch.zeros(3, dtype=torch.int64))
    trigger = LearnedEmbedding(budgets=(0, 60), lr=0.2)
    with torch.inference_mode(False), model.borrowed():
        found = list(trigger.attempts(model, tokens, told, given=5, seed=0))
    hits = [(one.tokens == tokens)[:, 5:].double().mean() for one in found]
    assert hits[1] > hits[0]
    assert len({tuple(one.tolist()) for one in found[1].tokens[:, 5:]}) == 3
    assert not adapter.driver.classes[0]._forward_hooks
