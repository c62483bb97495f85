"""The half of an adapter that raster models share, by the ImageGPT of the examples."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError, NonFiniteLogitsError
from iarmem_plugin.evaluation.ranking.passes import rank_candidates
from iarmem_plugin.evaluation.torchvision_ops import import_torchvision
from iarmem_plugin.interfaces import Adapter, Condition, ForwardInputs, Sampling, Variant
from iarmem_plugin.models.sampling import Draws, choose
from iarmem_plugin.models.token_by_token import TokenByToken
from iarmem_plugin.models.tracing import ImageARModel, wrapped
from iarmem_plugin.testing import AdapterTests
from iarmem_plugin.testing.tiny import TinyAdapter

EXAMPLE = Path(__file__).parents[3] / "examples" / "imagegpt_adapter.py"
CODES, SIDE = 8, 4
NOTHING = Condition.of([-1, -1, -1])


@pytest.fixture(scope="module")
def example() -> ModuleType:
    import_torchvision()  # which transformers imports
    spec = spec_from_file_location("imagegpt_adapter", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def adapter(example: ModuleType) -> Adapter:
    from transformers import ImageGPTConfig, ImageGPTForCausalImageModeling

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = ImageGPTConfig(
            vocab_size=CODES + 1, n_positions=SIDE**2, n_embd=32, n_layer=2, n_head=2
        )
        network = ImageGPTForCausalImageModeling(config)
        nn.init.normal_(network.lm_head.weight)
        colours = torch.rand(CODES, 3) * 2 - 1
    adapter: Adapter = example.ImageGPTAdapter(network.eval(), example.Colours(colours))
    return adapter


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(CODES, (3, SIDE**2), generator=torch.Generator().manual_seed(1))


class TestImageGPT(AdapterTests):
    @pytest.fixture
    def adapter(self, adapter: Adapter) -> Adapter:
        return adapter


def test_a_variant_knows_what_its_network_and_layout_tell(adapter: Adapter) -> None:
    variant = adapter.variant
    assert (variant.family, variant.blocks, variant.neurons) == ("imagegpt", 2, 128)
    assert variant.parameters == sum(one.numel() for one in adapter.network.parameters())
    assert (variant.resolution, variant.views) == (4, Views(crop=4, resize=4))
    assert variant.sampling == Sampling(greedy=False)


def test_pictures_of_its_colours_come_back(adapter: Adapter, tokens: torch.Tensor) -> None:
    with wrapped(adapter) as model:
        images = model.decode(tokens)
        assert images.shape == (3, 3, SIDE, SIDE)
        assert torch.equal(model.tokenize(images), tokens)


def test_logits_are_those_of_the_network_that_reads_a_start_and_all_tokens_but_the_last(
    adapter: Adapter, tokens: torch.Tensor
) -> None:
    start = torch.full((3, 1), CODES)
    with torch.no_grad():
        expected = adapter.network(torch.cat((start, tokens[:, :-1]), dim=1)).logits
        with wrapped(adapter) as model:
            assert torch.equal(model.logits(tokens, NOTHING), expected)
            hit, likelihood = model.predicted(tokens, NOTHING)
    assert torch.equal(hit, expected.argmax(2) == tokens)
    by_hand = -nn.functional.cross_entropy(expected.double().mT, tokens, reduction="none")
    torch.testing.assert_close(likelihood, by_hand, rtol=0, atol=1e-12)  # float64


@pytest.mark.parametrize("caches", [True, False])
@pytest.mark.parametrize("known", [0, 5, SIDE**2])
def test_greedy_completion_is_the_likeliest_token_of_a_teacher_forced_pass(
    adapter: Adapter,
    tokens: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
    caches: bool,
    known: int,
) -> None:
    monkeypatch.setattr(type(adapter), "caches", caches)
    with wrapped(adapter) as model, model.borrowed():
        completed = model.complete(tokens[:, :known], NOTHING, Sampling())
        logits = model.logits(completed, NOTHING)
    assert torch.equal(completed[:, :known], tokens[:, :known])
    assert torch.equal(completed[:, known:], logits.argmax(2)[:, known:])


def test_with_a_cache_each_pass_reads_one_token(adapter: Adapter, tokens: torch.Tensor) -> None:
    lengths: list[int] = []
    handle = adapter.network.register_forward_pre_hook(
        lambda _module, _args, kwargs: lengths.append(kwargs["input_ids"].shape[1]),
        with_kwargs=True,
    )
    with wrapped(adapter) as model, model.borrowed():
        model.complete(tokens[:, :5], NOTHING, Sampling())
    handle.remove()
    assert lengths == [6] + [1] * 10


def test_a_model_that_is_told_nothing_is_the_same_with_guidance(
    adapter: Adapter, tokens: torch.Tensor
) -> None:
    with wrapped(adapter) as model, model.borrowed():
        plain, guided = (
            model.complete(tokens[:, :5], NOTHING, Sampling(guidance=one)) for one in (0.0, 3.0)
        )
    assert torch.equal(plain, guided)


def test_its_best_predicted_pictures_are_ranked_without_classes(adapter: Adapter) -> None:
    random = np.random.default_rng(0)
    pictures = Images.from_arrays(random.integers(0, 256, (6, SIDE, SIDE, 3), np.uint8))
    with wrapped(adapter) as model:
        found = rank_candidates(model, pictures, Views(crop=SIDE), per_class=2, positions=range(16))
        with model.borrowed():
            pixels = torch.from_numpy(
                np.stack([np.asarray(pictures.load(one)) for one in range(6)])
            )
            tokens = model.tokenize(pixels.permute(0, 3, 1, 2) / 255)
            hits = (model.logits(tokens, Condition.of([-1] * 6)).argmax(2) == tokens).sum(1)
    assert len(found) == 2
    assert (found.hit_rate * 16).tolist() == sorted(hits.tolist(), reverse=True)[:2]


class Echo(nn.Module):
    """Predicts, at each position, the label's logits and nothing else; the last is no class."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table, self.num_classes = nn.Parameter(table), len(table) - 1

    def forward(self, labels: torch.Tensor, length: int) -> torch.Tensor:
        return self.table[labels].unsqueeze(1).expand(-1, length, -1)


class EchoAdapter(TokenByToken):
    name = "echo"

    def __init__(self, table: torch.Tensor, base: TinyAdapter) -> None:
        self.network, self.tokenizer = Echo(table), base.tokenizer
        self.layout, self.variant = base.layout, base.variant

    @classmethod
    def variants(cls) -> dict[str, Variant]:
        return {}

    load = matches = from_model = tokenize = decode = None  # type: ignore[assignment]  # not called

    def inputs(
        self, condition: Condition, tokens: torch.Tensor, *, unconditional: bool = False
    ) -> ForwardInputs:
        nothing = torch.full_like(condition.label, self.network.num_classes)
        labels = nothing if unconditional else condition.label
        return ForwardInputs((labels, tokens.shape[1] + 1))


TABLE = torch.tensor([[2.0, 0.0, 1.0, -1.0], [0.0, 0.5, -1.0, 0.0], [2.0, -4.0, 0.0, 1.0]])
TOLD = Condition.of([0, 1])


def test_guidance_goes_from_the_model_that_is_told_nothing_through_the_one_that_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    family = EchoAdapter(TABLE, TinyAdapter.make())
    sampling = Sampling(greedy=False, guidance=2.0, seed=(7, 8))
    expected = TABLE[-1] + 3.0 * (TABLE[:2] - TABLE[-1])
    drawn = choose(expected[:, None].expand(2, 1, 4), sampling, Draws((7, 8), torch.device("cpu")))
    found = family.complete(torch.zeros(2, 20, dtype=torch.int64), TOLD, sampling)
    assert torch.equal(found[:, 20:], drawn)


def test_a_masked_vocabulary_is_never_drawn_from_guided_or_not() -> None:
    table = TABLE.clone()
    table[:, 0] = -torch.inf
    family = EchoAdapter(table, TinyAdapter.make())
    for guidance in (0.0, 2.0):
        sampling = Sampling(greedy=False, guidance=guidance, seed=(1, 2))
        assert int(family.complete(torch.zeros(2, 0, dtype=int), TOLD, sampling).min()) > 0


def test_logits_that_are_not_finite_are_refused() -> None:
    family = EchoAdapter(TABLE.where(TABLE != 0.5, torch.nan), TinyAdapter.make())
    with pytest.raises(NonFiniteLogitsError, match=r"1 of 2 .* position 3 on"):
        family.complete(torch.zeros(2, 3, dtype=torch.int64), TOLD, Sampling())


def test_a_prefix_longer_than_an_image_is_refused() -> None:
    family = EchoAdapter(TABLE, TinyAdapter.make())
    with pytest.raises(InputError, match="got 22 tokens an image, expected at most 21"):
        family.complete(torch.zeros(2, 22, dtype=torch.int64), TOLD, Sampling())
    with pytest.raises(InputError, match="got 5 tokens an image, expected 21"):
        family.teacher_forced(torch.zeros(2, 5, dtype=torch.int64), TOLD)


def test_an_image_model_of_the_example_is_recognised(adapter: Adapter) -> None:
    assert type(adapter).matches(adapter.network)
    assert not type(adapter).matches(nn.Linear(1, 1))
    assert isinstance(ImageARModel(adapter).adapter, TokenByToken)
