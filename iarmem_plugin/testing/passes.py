"""What the laws of an adapter are tried with: passes, captures, and other tokens or conditions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from iarmem_plugin.borrowing import evaluating
from iarmem_plugin.interfaces import Adapter, Condition, Sampling, Scale
from iarmem_plugin.models.token_by_token import TokenByToken, guide
from iarmem_plugin.models.tracing import ImageARModel, wrapped

MOVED, STILL = 1e-3, 1e-6  # by which something has changed for sure, or not at all


def unlike(share: float, length: int) -> str:
    """Say what it means that completion and teacher forcing do not agree."""
    return (
        f"{share:.0%} of the tokens that complete() chose after a prefix of {length} are not the "
        "likeliest of predicted(): see teacher_forced and the layout's predicting, and in "
        "completion step, caches and next_logits"
    )


def misses(model: ImageARModel, prefix: Tensor, condition: Condition) -> float:
    """Return the share of greedily chosen tokens that teacher forcing does not predict."""
    tokens = model.complete(prefix, condition, Sampling())
    hits = model.predicted(tokens, condition)[0][:, prefix.shape[1] :]
    return 1 - float(hits.double().mean())


def likelihoods(adapter: Adapter, given: Tensor, scored: Tensor, condition: Condition) -> Tensor:
    """Return the log-likelihoods of some tokens where others are given: [image token]."""
    with torch.no_grad():
        return adapter.predicted(forced(adapter, given, condition), scored)[1]


def seen_at_tokens(
    adapter: Adapter, given: Tensor, scored: Tensor, condition: Condition
) -> tuple[Tensor, Tensor]:
    """Return log-likelihoods [image token 1] and the last block's neurons [image token neuron]."""
    count = given.shape[1]
    with wrapped(adapter) as model, model.borrowed():
        each = model.with_scales([Scale(str(one), (one,)) for one in range(count)])
        neurons = read(each, given, condition)[:, -1]
    return likelihoods(adapter, given, scored, condition)[..., None], neurons


def seen_elsewhere(before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]) -> list[int]:
    """Return the tokens whose neurons moved and not their prediction, or the other way round.

    A prediction of the only token that may follow never moves. Predictions may move before the
    last block's neurons do, but not the first one: what is behind it sees the tokens between.

    Args:
        before: from `seen_at_tokens`.
        after: the same with another token somewhere.
    """
    predictions, neurons = (moves(a, b).amax((0, 2)) for a, b in zip(before, after, strict=True))
    neurons = neurons / before[1].amax((0, 2)).clamp(min=1e-6)
    certain = (before[0] == 0).all(0).squeeze(-1)
    wrong = (neurons > MOVED) & (predictions < STILL) & ~certain
    if len(first := (predictions > MOVED).nonzero().flatten()):
        wrong[first[0]] |= neurons[first[0]] < STILL
    return [int(one) for one in wrong.nonzero().flatten()]


def declared(adapter: Adapter, condition: Condition) -> Condition:
    """Return what pictures tell that have no more than the adapter says that it is told."""
    told, label = type(adapter).conditions, condition.label
    return Condition(
        label if "label" in told else torch.full_like(label, -1),
        condition.image,
        condition.text if "text" in told else None,
    )


def other_first(condition: Condition, classes: int) -> Condition:
    """Return a condition in which the first image is told something else."""
    label, text = condition.label.clone(), condition.text
    label[0] = torch.where(label[0] >= 0, (label[0] + 1) % classes, label[0])
    changed = None if text is None else (text[0][::-1], *text[1:])
    return Condition(label, condition.image, changed)


def other_undeclared(adapter: Adapter, condition: Condition) -> Condition:
    """Return a condition that tells something else where the adapter says that it is told nothing.

    So do pictures that have more than a model is told.
    """
    told, label, text = type(adapter).conditions, condition.label, condition.text
    if text is not None and "text" not in told:
        text = tuple(one[::-1] for one in text)
    return Condition(label if "label" in told else 1 - label, condition.image, text)


def moves(before: Tensor, after: Tensor) -> Tensor:
    """Return by how much values moved; not at all where both are the same, be it -inf."""
    return torch.where(after == before, 0.0, after - before).abs()


def next_logits(
    family: TokenByToken, condition: Condition, tokens: Tensor, unconditional: bool
) -> Tensor:
    """Return the next token's logits of one full pass, without a cache: [image 1 vocab]."""
    inputs = family.inputs(condition, tokens, unconditional=unconditional)
    with evaluating(family.modules.values()), family.prepared(), torch.no_grad():
        return family.next_logits(family.network(*inputs.args, **inputs.kwargs)).float()


def guided_misses(family: TokenByToken, prefix: Tensor, condition: Condition) -> float:
    """Return the share of tokens of a guided, greedy completion that full passes do not choose."""
    sampling, begun = Sampling(guidance=2.0), prefix.shape[1]
    with wrapped(family) as model, model.borrowed():
        tokens = model.complete(prefix, condition, sampling)
    hits = []
    for token in range(begun, tokens.shape[1]):
        known, weight = tokens[:, :token], family.guidance_weight(sampling, token)
        told, untold = (next_logits(family, condition, known, one) for one in (False, True))
        best = guide(torch.cat((told, untold)), weight)[:, -1].argmax(1)
        hits.append(best == tokens[:, token])
    return 1 - float(torch.stack(hits).double().mean())


def strangers() -> list[nn.Module]:
    """Return modules that are nobody's model, one with parts of the usual names."""
    usual = nn.Module()
    for name in ("blocks", "layers", "h", "transformer", "model", "norm", "head", "embed", "tok"):
        setattr(usual, name, nn.ModuleList([nn.Linear(2, 2)]))
    return [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.GELU()), usual]


def forced(adapter: Adapter, tokens: Tensor, condition: Condition) -> Any:
    """Return what the plain network returns for ground-truth tokens."""
    mode = adapter.network.training
    adapter.network.eval()
    try:
        with adapter.prepared(), torch.inference_mode():
            inputs = adapter.teacher_forced(tokens, condition)
            return adapter.network(*inputs.args, **inputs.kwargs)
    finally:
        adapter.network.train(mode)


def places(adapter: Adapter, count: int) -> list[int]:
    """Return where tokens are altered: first ones of scales, and some spread over the image."""
    firsts = {scale.tokens[0] for scale in adapter.layout.scales}
    spread = {round(place) for place in np.linspace(0, count - 1, 12)}
    return sorted(place for place in firsts | spread if place < count)


def altered(tokens: Tensor, place: int) -> Tensor:
    """Return tokens of which those at a place are others, taken from these."""
    values = tokens.flatten(0, 1).unique(dim=0)
    assert len(values) > 1, "the images have one token alone; give the fixture `tokens` others"
    changed = tokens.clone()
    for image, token in enumerate(tokens[:, place]):
        other = (values != token).flatten(1).any(1) if values.ndim > 1 else values != token
        changed[image, place] = values[other][0]
    return changed


def read(model: ImageARModel, tokens: Tensor, condition: Condition) -> Tensor:
    """Capture through the trace: (image, block, scale, neuron)."""
    return model.read_neurons(model.adapter.teacher_forced(tokens, condition)).clone()


def chosen(model: ImageARModel, block: int, neurons: Any) -> xr.DataArray:
    """Choose some neurons of a block."""
    shape = (model.layout.num_blocks, model.layout.neurons_per_block)
    found = np.zeros(shape, bool)
    found[block, list(neurons)] = True
    return xr.DataArray(found, dims=("block", "neuron"))
