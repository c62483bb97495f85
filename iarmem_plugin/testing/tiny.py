"""TinyAdapter: for tests of what works on any model, such as capture, edits and extraction."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from iarmem_plugin.data.augmentation import Views
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import (
    Adapter,
    Checkpoint,
    Condition,
    ForwardInputs,
    Sampling,
    Variant,
)
from iarmem_plugin.interfaces.condition import NO_CLASS
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.interfaces.mlp import MLP, Reads, Site, Writes
from iarmem_plugin.models.sampling import LogitsWatch, seeded_generator, with_noise
from iarmem_plugin.testing.tiny_model import (
    CLASSES,
    DEPTH,
    ENDS,
    PIXELS,
    SIDES,
    WIDTH,
    TinyNetwork,
    TinyTokenizer,
)


class TinyAdapter(Adapter):
    """A model of 3 blocks, 3 scales and 5 classes, with untrained weights.

    Args:
        network: the transformer.
        tokenizer: its image tokenizer.
    """

    name: ClassVar[str] = "tiny"
    recognises: ClassVar[str] = "TinyNetwork"
    without_class: ClassVar[bool] = True
    module_aliases: ClassVar[Mapping[str, str]] = {"ffn": "mlp"}

    def __init__(self, network: TinyNetwork, tokenizer: TinyTokenizer) -> None:
        self.network, self.tokenizer = network, tokenizer
        self.layout = _layout()
        self.variant = next(iter(self.variants().values()))

    @classmethod
    def make(cls, seed: int = 0) -> TinyAdapter:
        """Make a network and a tokenizer; torch's own random state stays as it is.

        Args:
            seed: seed for drawing all weights.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network, tokenizer = TinyNetwork(), TinyTokenizer()
            nn.init.normal_(network.position_embedding)
        return cls(network.eval(), tokenizer.eval())

    @classmethod
    def variants(cls) -> Mapping[str, Variant]:
        """Return the one there is."""
        tiny = Variant(
            name="tiny",
            family=cls.name,
            blocks=DEPTH,
            neurons=4 * WIDTH,
            parameters=26_800,
            resolution=PIXELS,
            views=Views(crop=PIXELS, resize=PIXELS + 1),
            sampling=Sampling(greedy=False),
            prefix_tokens=ENDS[2],
            num_classes=CLASSES,
            source="made on the spot",
            licence="Apache-2.0",
        )
        return {tiny.name: tiny}

    @classmethod
    def load(
        cls,
        variant: str,
        *,
        files: Mapping[str, Path],
        device: str,
        dtype: torch.dtype,
    ) -> TinyAdapter:
        """Make the model; there are no files.

        Raises:
            InputError: files were named.
        """
        if files:
            raise InputError(f"{variant} has no files; leave out --weights and --tokenizer")
        made = cls.make()
        made.network.to(device, dtype)
        made.tokenizer.to(device)
        return made

    @classmethod
    def checkpoint(cls, variant: str, weights: Path | None) -> Checkpoint:
        """Return a state dict of a TinyNetwork that torch.save wrote, as its file holds it.

        Raises:
            InputError: no file was named.
        """
        if weights is None:
            raise InputError(f"{variant} needs --weights, a state dict of its network")
        state = torch.load(weights, map_location="cpu", weights_only=True)
        with torch.device("meta"):
            network = TinyNetwork()
        network.load_state_dict(state, strict=True, assign=True)
        facts = {"name": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
        return Checkpoint(network.eval(), _layout(), state, state, weights, facts)

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        """Tell whether a model is a TinyNetwork."""
        return isinstance(model, TinyNetwork)

    @classmethod
    def from_model(cls, model: nn.Module, tokenizer: nn.Module | None) -> TinyAdapter:
        """Pair a TinyNetwork with a TinyTokenizer.

        Raises:
            InputError: they are something else.
        """
        if isinstance(model, TinyNetwork) and isinstance(tokenizer, TinyTokenizer):
            return cls(model, tokenizer)
        given = f"{type(model).__name__} and {type(tokenizer).__name__}"
        raise InputError(f"got {given}, expected a TinyNetwork and a TinyTokenizer")

    def tokenize(self, images: Float[Tensor, "image 3 height width"]) -> Int[Tensor, "image token"]:
        """Turn pictures into the tokens of all scales.

        Raises:
            InputError: pictures of another size.
        """
        if images.shape[2:] != (PIXELS, PIXELS):
            raise InputError(
                f"images of {tuple(images.shape[2:])} pixels, expected {PIXELS} a side"
            )
        return self._tokenizer.encode(images)

    def decode(self, tokens: Int[Tensor, "image token"]) -> Float[Tensor, "image 3 height width"]:
        """Turn the tokens of all scales into pictures."""
        return self._tokenizer.decode(tokens)

    def teacher_forced(
        self, tokens: Int[Tensor, "image token"], condition: Condition
    ) -> ForwardInputs:
        """Return labels and what every position sees of the scales before its own.

        Raises:
            InputError: a label outside the model's classes.
        """
        untold = condition.label == NO_CLASS
        _check_labels(condition.label[~untold])
        labels = condition.label.masked_fill(untold, CLASSES)
        seen = [self._tokenizer.seen(tokens, scale) for scale in range(len(SIDES))]
        return ForwardInputs((labels, torch.cat(seen, 1)))

    @property
    def condition_width(self) -> int:
        """Return the width of a class embedding."""
        return self._classes.embedding_dim

    @contextmanager
    def condition_embedding(self, added: Float[Tensor, "image width"]) -> Iterator[None]:
        """Add a vector to the class embedding of each image; guidance's rows are behind them."""

        def add(_module: nn.Module, _labels: tuple[Tensor], embedded: Tensor) -> Tensor:
            own, rest = embedded[: len(added)], embedded[len(added) :]
            return torch.cat((own + added.to(own.dtype), rest))

        handle = self._classes.register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()

    def complete(
        self,
        prefix: Int[Tensor, "image prefix"],
        condition: Condition,
        sampling: Sampling,
    ) -> Int[Tensor, "image token"]:
        """Complete a prefix of whole scales.

        Raises:
            InputError: a label outside the classes, or a prefix that ends inside a scale.
            NonFiniteLogitsError: tokens would be chosen from logits that are not finite.
        """
        labels = condition.label
        _check_labels(labels)
        if prefix.shape[1] not in ENDS:
            raise InputError(f"a prefix of {prefix.shape[1]} tokens, expected one of {ENDS}")
        generators, tokens = _generators(sampling, labels), prefix
        noise = seeded_generator(sampling, labels.device)
        watch = LogitsWatch(sampling, prefix.shape[1], at_once=not sampling.greedy)
        with torch.no_grad():
            for scale in range(ENDS.index(prefix.shape[1]), len(SIDES)):
                logits = self._scale_logits(tokens, labels, scale, sampling.guidance)
                watch.see(logits)
                logits = with_noise(logits, sampling, noise)
                tokens = torch.cat((tokens, _chosen(logits, sampling, generators)), 1)
        watch.check()
        return tokens

    @property
    def _classes(self) -> nn.Embedding:
        return cast(TinyNetwork, self.network).class_embedding

    @property
    def _tokenizer(self) -> TinyTokenizer:
        return cast(TinyTokenizer, self.tokenizer)

    def _scale_logits(self, tokens: Tensor, labels: Tensor, scale: int, guidance: float) -> Tensor:
        seen = self._tokenizer.seen(tokens, scale)
        if guidance == 0:
            return cast(Tensor, self.network(labels, seen, ENDS[scale]))
        both = torch.cat((labels, torch.full_like(labels, CLASSES)))
        logits = self.network(both, torch.cat((seen, seen)), ENDS[scale])
        with_class, without = logits.chunk(2)
        return torch.lerp(without, with_class, 1 + guidance)


def _layout() -> ModelLayout:
    spans = enumerate(pairwise(ENDS))
    return ModelLayout(
        family="tiny",
        num_blocks=DEPTH,
        neurons_per_block=4 * WIDTH,
        scales=tuple(Scale(str(number), tuple(range(*span))) for number, span in spans),
        mlp=MLP(
            Writes("blocks.{block}.ffn.fc2"),
            {"fc1": Reads("blocks.{block}.ffn.fc1")},
            Site("blocks.{block}.ffn.act"),
        ),
        predicting=range(ENDS[-1]),
        ranked_tokens=SIDES[-1] ** 2,
    )


def _check_labels(labels: Tensor) -> None:
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < CLASSES:
        raise InputError(f"labels {labels.tolist()}; the model has the classes 0 to {CLASSES - 1}")


def _generators(sampling: Sampling, labels: Tensor) -> Iterable[torch.Generator | None]:
    """Return a random generator for each image; None draws from torch's own."""
    seeds = sampling.seed
    if seeds is None:
        return [None] * len(labels)
    if isinstance(seeds, int):
        return [torch.Generator(labels.device).manual_seed(seeds)] * len(labels)
    return [torch.Generator(labels.device).manual_seed(seed) for seed in seeds]


def _chosen(
    logits: Float[Tensor, "image token vocab"],
    sampling: Sampling,
    generators: Iterable[torch.Generator | None],
) -> Int[Tensor, "image token"]:
    if sampling.greedy:
        return logits.argmax(2)
    logits = logits.float() / sampling.temperature
    if sampling.top_k:
        least = logits.topk(sampling.top_k, 2).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    rows = zip(logits.softmax(2), generators, strict=True)
    return torch.stack([torch.multinomial(row, 1, generator=one)[:, 0] for row, one in rows])
