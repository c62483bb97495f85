"""What each block of a model hands on, and what another model predicts when it is given that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float64, Shaped
from torch import Tensor, nn

from iarmem_plugin.checks import check_kind
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import (
    Candidates,
    Completes,
    check_finite,
    check_tokens,
    images_named,
)
from iarmem_plugin.evaluation.extraction import candidate_coords
from iarmem_plugin.interfaces import Adapter, Condition
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.models.sampling import check_likelihood
from iarmem_plugin.models.shadows import block_path

PATCHED, OWN, GIVEN = "patched_loss", "loss", "prefix_tokens"
See = Callable[[int, Tensor], Tensor | None]
"""Is shown the number of a block and what it hands on; returns what is put in its place."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class BlockOutputs:
    """What each block of a model hands on to the next, teacher-forced.

    Attributes:
        blocks: one tensor a block, its first dim the candidates; on the CPU, in the model's dtype.
    """

    blocks: tuple[Tensor, ...]

    def __repr__(self) -> str:
        """Return what is held, and how large it is."""
        size = sum(one.nbytes for one in self.blocks) / 1e6
        count = len(self.blocks[0]) if self.blocks else 0
        return f"BlockOutputs({len(self.blocks)} blocks, {count} candidates, {size:.1f} MB)"


def block_outputs(
    model: Completes,
    candidates: Candidates,
    tokens: Shaped[Tensor, "candidate token *rest"],
    *,
    batch_size: int | Batching = 64,
) -> BlockOutputs:
    """Read what each block of a model hands on, as it predicts the candidates' tokens.

    Where an edit lasts for a while, call it inside: what it returns stays. That takes blocks x
    candidates x positions x width numbers in the model's dtype.

    Args:
        model: the traced model, edited or not.
        candidates: images with their labels.
        tokens: their tokens, as `make_targets` made them from the unmodified model.
        batch_size: images at a time; halved where memory does not suffice.

    Raises:
        InputError: there are no candidates, or not the tokens of each; continuous tokens; or a
            model whose blocks cannot be read.
        NonFiniteLogitsError: naming the first image whose logits are not finite.
    """
    check_tokens(candidates, tokens)
    modules = dict(enumerate(_blocks(model)))
    held: dict[int, Tensor] = {}

    def read(rows: slice) -> None:
        def see(block: int, values: Tensor) -> None:
            if len(values) != rows.stop - rows.start:
                raise InputError(
                    f"block {block} hands on {tuple(values.shape)} for {rows.stop - rows.start} "
                    "images; depth needs blocks whose first dim is the images"
                )
            if block not in held:
                held[block] = values.new_empty((len(tokens), *values.shape[1:]), device="cpu")
            held[block][rows] = values.detach().to("cpu")

        with _watched(modules, see):
            _likelihoods(model, candidates, tokens, rows)

    with model.borrowed():
        for _ in Batching.of(batch_size).over(len(tokens), read):
            pass
    return BlockOutputs(tuple(held[block] for block in modules))


def patched_losses(
    model: Completes,
    outputs: BlockOutputs,
    candidates: Candidates,
    tokens: Shaped[Tensor, "candidate token *rest"],
    *,
    given: int = 0,
    batch_size: int | Batching = 64,
) -> xr.Dataset:
    """Predict the candidates' tokens while one block after the other hands on what is given.

    Args:
        model: the unmodified model; it comes back as it was.
        outputs: from `block_outputs` of an edited model, or of the twin, for the same candidates.
        candidates: images with their labels and groups.
        tokens: their tokens.
        given: first tokens whose loss does not count, such as the prefix of a completion.
        batch_size: images at a time; halved where memory does not suffice.

    Returns:
        ``patched_loss``, dims (block, candidate), and the model's own ``loss``, dims (candidate):
        mean negative log-likelihood of the tokens after those given, nats a token, float64.
        Candidates have the coordinates that `extract` gives them.

    Raises:
        InputError: there are no candidates, or not the tokens of each, or none that count;
            outputs of a model with other blocks, or of other candidates.
        NonFiniteLogitsError: naming the first image whose logits are not finite.
        NonFiniteSimilarityError: naming the first image a token of which has no probability.
    """
    check_tokens(candidates, tokens)
    if not 0 <= given < tokens.shape[1]:
        raise InputError(
            f"{given} given tokens leave nothing to predict: these images have {tokens.shape[1]}"
        )
    modules = _blocks(model)
    _check_fitting(outputs, len(modules), len(tokens))

    def measured(rows: slice) -> np.ndarray:
        def losses(block: int | None = None) -> Float64[np.ndarray, " image"]:
            put = {} if block is None else {block: modules[block]}
            with _watched(put, lambda one, now: _fitting(outputs.blocks[one][rows], now, one)):
                likely = _likelihoods(model, candidates, tokens, rows)
            return -likely[:, given:].mean(1).cpu().numpy()

        return np.stack([losses(), *map(losses, range(len(modules)))])

    with model.borrowed():
        parts = Batching.of(batch_size).over(len(tokens), measured)
        own, *patched = np.concatenate(list(parts), axis=1)
    for one in (own, *patched):
        check_finite(one, candidates.images, "the loss")
    return xr.Dataset(
        {PATCHED: (("block", "candidate"), np.stack(patched)), OWN: ("candidate", own)},
        coords=candidate_coords(candidates) | {"block": np.arange(len(modules))},
        attrs={GIVEN: given},
    )


def _blocks(model: Completes) -> list[nn.Module]:
    """Return the modules of a model's blocks.

    Raises:
        InputError: the model has no adapter that says where they are.
    """
    adapter = getattr(model, "adapter", None)
    if not isinstance(adapter, Adapter):
        raise InputError(
            f"what its blocks hand on cannot be read from a {type(model).__name__}, which shows no "
            "adapter; leave its depth out"
        )
    path, count = block_path(adapter.layout), adapter.layout.num_blocks
    return [adapter.network.get_submodule(path.format(block=block)) for block in range(count)]


@contextmanager
def _watched(modules: Mapping[int, nn.Module], see: See) -> Iterator[None]:
    """See what blocks hand on in one pass, and put something else in its place.

    Raises:
        InputError: a block was not called exactly once, or hands on no tensor.
    """
    calls: Counter[int] = Counter()

    def hook_of(block: int) -> Callable[..., Any]:
        def hook(_module: nn.Module, _given: Any, output: Any) -> Any:
            calls[block] += 1
            put = see(block, _hidden(output, block))
            if put is None or isinstance(output, Tensor):
                return put
            return type(output)((put, *output[1:]))

        return hook

    handles = []
    try:
        for block, module in modules.items():
            handles.append(module.register_forward_hook(hook_of(block)))
        yield
    finally:
        for one in handles:
            one.remove()
    for block in modules:
        if calls[block] != 1:
            raise InputError(
                f"block {block} was called {calls[block]} times in a pass; depth needs a model "
                "that calls each block once"
            )


def _hidden(output: Any, block: int) -> Tensor:
    """Return the hidden state among what a block returns."""
    found = output[0] if type(output) in (tuple, list) and output else output
    if not isinstance(found, Tensor):
        raise InputError(
            f"block {block} returns a {type(output).__name__}; expected a tensor, or a tuple that "
            "begins with one"
        )
    return found


def _fitting(values: Tensor, now: Tensor, block: int) -> Tensor:
    if values.shape != now.shape:
        raise InputError(
            f"block {block} hands on {tuple(now.shape)} and is to be given {tuple(values.shape)}; "
            "give the outputs of a model of the same sizes"
        )
    return values.to(now, copy=True)  # what comes after may write into it


def _likelihoods(
    model: Completes, candidates: Candidates, tokens: Tensor, rows: slice
) -> Float64[Tensor, "image token"]:
    told = Condition.of_images(candidates.images, rows).to(model.device)
    _, found = model.predicted(tokens[rows].to(model.device), told)
    with images_named(candidates.images.paths[rows]):
        check_likelihood(found)
    return found.double()


def _check_fitting(outputs: BlockOutputs, blocks: int, candidates: int) -> None:
    check_kind("the outputs", outputs, BlockOutputs, "what block_outputs returned")
    given: Sequence[Tensor] = outputs.blocks
    if len(given) != blocks or any(len(one) != candidates for one in given):
        raise InputError(
            f"{outputs!r} was given for a model of {blocks} blocks and {candidates} candidates; "
            "read them for the same candidates from a model of the same sizes"
        )
