"""A model of bits: tokens have parts, hits and likelihoods are its own, and all of it is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.determinism import check_batching
from iarmem_plugin.evaluation.extraction import extract, make_targets
from iarmem_plugin.evaluation.generation import conditions_like, generate
from iarmem_plugin.evaluation.likelihood import HeldOutLoss
from iarmem_plugin.evaluation.losses import loss_protocol
from iarmem_plugin.evaluation.ranking.passes import rank_candidates
from iarmem_plugin.evaluation.similarity import PixelCorrelation
from iarmem_plugin.interfaces import Adapter, Condition, ForwardInputs, ModelLayout, Sampling, Scale
from iarmem_plugin.interfaces.adapter import Variant
from iarmem_plugin.interfaces.mlp import MLP, Reads, Writes
from iarmem_plugin.models.sampling import LogitsWatch, choose, seeded_generator
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.report.netcdf import restored, storable
from iarmem_plugin.testing import AdapterTests

SIDE, BITS, WIDTH = 4, 3, 16
TOKENS = SIDE**2
VIEWS = Views(crop=SIDE)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.act = nn.Linear(WIDTH, 4 * WIDTH), nn.GELU()
        self.fc2 = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(self.act(self.fc1(x)))


class BitNetwork(nn.Module):
    """Predicts the bits of each token from the mean of the tokens before it, and a caption."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.text = nn.Linear(BITS, WIDTH), nn.Embedding(256, WIDTH)
        self.blocks, self.head = nn.ModuleList([Block()]), nn.Linear(WIDTH, BITS)

    def forward(self, letters: Tensor, bits: Tensor) -> Tensor:
        seen = self.embed(bits.float() * 2 - 1).cumsum(1)
        start = self.text(letters).unsqueeze(1)
        x = torch.cat((start, start + seen[:, :-1] / torch.arange(1, bits.shape[1])[:, None]), 1)
        return self.head(self.blocks[0](x))


class BitAdapter(Adapter):
    """Tokens are the high bits of grey values; the model is told a caption's first letter."""

    name = "bits"
    conditions = frozenset({"text"})

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network, self.tokenizer = BitNetwork().eval(), nn.Identity()
        self.layout = ModelLayout(
            family="bits",
            num_blocks=1,
            neurons_per_block=4 * WIDTH,
            scales=(Scale("all", tuple(range(TOKENS))),),
            mlp=MLP(
                writes=Writes("blocks.{block}.fc2"), reads={"fc1": Reads("blocks.{block}.fc1")}
            ),
            predicting=range(TOKENS),
            ranked_tokens=TOKENS,
        )
        self.variant = Variant.of(
            self.network, self.layout, name="bits", resolution=SIDE, prefix_tokens=4, views=VIEWS
        )

    variants = load = from_model = classmethod(lambda cls, *_, **__: {})

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        return isinstance(model, BitNetwork)

    def tokenize(self, images: Tensor) -> Tensor:
        levels = (images[:, 0].flatten(1) * 255).round().int()
        return torch.stack([(levels >> shift) & 1 for shift in (7, 6, 5)], 2).bool()

    def decode(self, tokens: Tensor) -> Tensor:
        weights = torch.tensor([128, 64, 32])
        grey = (tokens * weights).sum(2).view(-1, 1, SIDE, SIDE) / 224
        return grey.expand(-1, 3, -1, -1)

    def teacher_forced(self, tokens: Tensor, condition: Condition) -> ForwardInputs:
        assert condition.text is not None
        letters = torch.tensor([ord(one[0]) % 256 for one in condition.text])
        return ForwardInputs((letters, tokens))

    def complete(self, prefix: Tensor, condition: Condition, sampling: Sampling) -> Tensor:
        tokens, generator = prefix, seeded_generator(sampling, prefix.device)
        watch = LogitsWatch(sampling, prefix.shape[1])
        for _ in range(prefix.shape[1], TOKENS):
            grown = torch.cat((tokens, tokens.new_zeros(len(tokens), 1, BITS)), 1)
            output = self.network(*self.teacher_forced(grown, condition).args)[:, -1]
            logits = torch.stack((torch.zeros_like(output), output), 2)  # of 0 and 1, bit by bit
            watch.see(logits)
            bits = choose(logits, sampling, generator).bool()
            tokens = torch.cat((tokens, bits.unsqueeze(1)), 1)
        watch.check()
        return tokens

    def predicted(self, output: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
        signed = output.double() * (tokens.double() * 2 - 1)
        return (signed > 0).all(2), nn.functional.logsigmoid(signed).sum(2)


class TestBits(AdapterTests):
    @pytest.fixture
    def adapter(self) -> Adapter:
        return BitAdapter()


@pytest.fixture
def model() -> ImageARModel:
    return ImageARModel(BitAdapter())


@pytest.fixture
def images() -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (6, SIDE, SIDE, 1), np.uint8)
    captions = ["cat", "dog", "cat two", "eel", "fox", "dog two"]
    return Images.from_arrays(pixels.repeat(3, 3), captions=captions)


def all_tokens(model: ImageARModel, images: Images) -> Tensor:
    return model.tokenize(torch.stack([VIEWS.center(images.load(one)) for one in range(6)]))


def test_the_held_out_loss_of_bits_is_refused_before_the_work(
    model: ImageARModel, images: Images
) -> None:
    with pytest.raises(InputError, match=r"needs tokens that are numbers .* have the shape \(3,\)"):
        loss_protocol(model, HeldOutLoss(), images, VIEWS)


def test_the_best_of_all_are_ranked_by_what_the_family_calls_a_hit(
    model: ImageARModel, images: Images
) -> None:
    tokens = all_tokens(model, images)
    letters = torch.tensor([ord(one[0]) for one in images.captions or ()])
    with torch.no_grad():
        output = model.adapter.network(letters, tokens)
    hits = ((output > 0) == tokens).all(2).sum(1).tolist()
    likelihood = -nn.functional.binary_cross_entropy_with_logits(
        output.double(), tokens.double(), reduction="none"
    ).sum((1, 2))
    order = sorted(range(6), key=lambda one: (-hits[one], -float(likelihood[one]), one))
    found = rank_candidates(model, images, VIEWS, per_class=4, batch_size=4)
    assert found.images.ids.tolist() == order[:4]
    assert found.hit_rate is not None
    assert (found.hit_rate * TOKENS).tolist() == [hits[one] for one in order[:4]]
    assert found.images.captions == tuple((images.captions or ())[one] for one in order[:4])


def test_extraction_counts_tokens_all_of_whose_bits_are_equal_and_keeps_the_bits(
    model: ImageARModel, images: Images, tmp_path: Path
) -> None:
    candidates = Candidates(images, np.full(6, "candidate"))
    targets = make_targets(model, candidates, VIEWS)
    found = extract(model, candidates, targets, similarity=PixelCorrelation(0.5), prefix_tokens=4)
    assert found["tokens"].dims == ("candidate", "token", "bit")
    assert found["tokens"].dtype == bool
    with model.borrowed():
        told = Condition.of_images(images)
        completed = model.complete(targets.tokens[:, :4], told, Sampling())
    assert np.array_equal(found["tokens"], completed)
    equal = (completed == targets.tokens).all(2).sum(1)
    assert found["equal_tokens"].values.tolist() == equal.tolist()
    assert (found["equal_tokens"] >= 4).all()
    storable(found).to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    again = restored(xr.load_dataset(tmp_path / "x.nc", engine="h5netcdf"))
    assert np.array_equal(again["tokens"], found["tokens"])


def test_images_are_generated_for_the_captions_of_pictures(
    model: ImageARModel, images: Images
) -> None:
    told = conditions_like(images, 3)
    assert told.text == ("cat", "cat two", "fox")
    assert told.label.tolist() == [-1] * 3
    generated = torch.cat(list(generate(model, told, Sampling(), batch_size=2)))
    assert generated.shape == (3, 3, SIDE, SIDE)
    assert torch.equal(generated[0], generated[1])  # a cat is a cat to this model


def test_the_check_of_batches_which_needs_one_logit_a_token_says_so(
    model: ImageARModel, images: Images
) -> None:
    candidates = Candidates(images, np.full(6, "candidate"))
    with pytest.raises(InputError, match="tokens of 3 parts have no one best logit"):
        check_batching(model, candidates, VIEWS, prefix_tokens=4)


@pytest.mark.parametrize(
    ("tokens", "stored"),
    [
        (torch.full((6, TOKENS), 2**40), np.int64),
        (torch.full((6, TOKENS), 2**31 - 1), np.int32),
        (torch.full((6, TOKENS), 7, dtype=torch.uint8), np.uint8),
    ],
)
def test_tokens_are_stored_as_int32_where_they_fit_and_never_cut(
    model: ImageARModel,
    images: Images,
    monkeypatch: pytest.MonkeyPatch,
    tokens: Tensor,
    stored: type,
) -> None:
    adapter, candidates = model.adapter, Candidates(images, np.full(6, "candidate"))
    grey = torch.rand(6, 3, SIDE, SIDE)
    monkeypatch.setattr(adapter, "tokenize", lambda pixels: tokens[: len(pixels)])
    monkeypatch.setattr(adapter, "decode", lambda some: grey[: len(some)])
    monkeypatch.setattr(adapter, "complete", lambda prefix, told, sampling: tokens[: len(prefix)])
    targets = make_targets(model, candidates, VIEWS)
    model._check_edits = lambda *_, **__: None
    found = extract(model, candidates, targets, similarity=PixelCorrelation(0.5), prefix_tokens=4)
    assert found["tokens"].dtype == stored
    assert np.array_equal(found["tokens"], tokens)


def test_continuous_tokens_are_refused_where_they_cannot_be_compared(
    model: ImageARModel, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        model.adapter, "tokenize", lambda pixels: torch.rand(len(pixels), TOKENS, 2)
    )
    candidates = Candidates(images, np.full(6, "candidate"))
    with pytest.raises(InputError, match=r"continuous tokens \(float32\) cannot be ranked"):
        rank_candidates(model, images, VIEWS)
    with pytest.raises(InputError, match=r"continuous tokens \(float32\) cannot be completed and"):
        make_targets(model, candidates, VIEWS)
