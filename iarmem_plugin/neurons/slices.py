"""Which numbers of a network belong to a neuron: the only code that indexes its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from jaxtyping import Int
from torch import Tensor, nn

from iarmem_plugin.errors import WeightsError
from iarmem_plugin.interfaces import MLP, ModelLayout, NeuronFacts, NeuronWeights


@dataclass(frozen=True, slots=True)
class Slice:
    """The numbers of a block's neurons in one tensor of one module.

    Attributes:
        kind: field of `NeuronWeights` that they are shown in.
        read: name of the map into the neurons; ``""`` for the map out of them.
        path: path of the module, with ``{block}``.
        tensor: name of the tensor, ``"weight"`` or ``"bias"``.
        dim: dim of the tensor that counts neurons.
        first: place of neuron 0 along it.
    """

    kind: Literal["reads", "biases", "writes"]
    read: str
    path: str
    tensor: Literal["weight", "bias"]
    dim: Literal[0, 1]
    first: int = 0

    def key(self, block: int) -> str:
        """Return the name of the tensor in the network's state dict."""
        return f"{self.path.format(block=block)}.{self.tensor}"

    def held_by(self, network: nn.Module, block: int) -> Tensor | None:
        """Return the tensor; None where the module has none."""
        found = getattr(network.get_submodule(self.path.format(block=block)), self.tensor, None)
        return found if isinstance(found, Tensor) else None

    def of(self, weights: NeuronWeights) -> Tensor | None:
        """Return these numbers as an intervention sees them; None where there are none."""
        if self.kind == "writes":
            return weights.writes
        if self.kind == "reads":
            return weights.reads[self.read]
        return weights.biases[self.read]

    def taken(self, tensor: Tensor, index: Int[Tensor, " neuron"]) -> Tensor:
        """Return a copy of some neurons' numbers, as an intervention sees them."""
        return self._turned(tensor.detach()[self._where(index)]).contiguous()

    def put(self, tensor: Tensor, index: Int[Tensor, " neuron"], numbers: Tensor) -> None:
        """Replace some neurons' numbers in place, wherever the tensor lies by now."""
        where = self._where(index.to(tensor.device))
        tensor[where] = self._turned(numbers).to(tensor)

    def _where(self, index: Tensor) -> tuple[slice | Tensor, ...]:
        rows = index + self.first if self.first else index
        return (rows,) if self.dim == 0 else (slice(None), rows)

    def _turned(self, numbers: Tensor) -> Tensor:
        """Turn what a module and an intervention hold the other way round."""
        as_seen = 1 if self.kind == "writes" else 0
        return numbers if self.dim == as_seen else numbers.T


def slices(mlp: MLP) -> tuple[Slice, ...]:
    """Return where a block's neurons have their numbers: every map into them, and the one out."""
    return (*_reads(mlp), Slice("writes", "", mlp.writes.path, "weight", mlp.writes.features))


def _reads(mlp: MLP) -> Iterator[Slice]:
    for name, one in mlp.reads.items():
        yield Slice("reads", name, one.path, "weight", one.features, one.first)
        yield Slice("biases", name, one.path, "bias", 0, one.first)


def gathered(mlp: MLP, facts: NeuronFacts, part: Callable[[Slice], Tensor | None]) -> NeuronWeights:
    """Return the weights of some neurons, each part as a function gives it.

    Args:
        mlp: maps into and out of the neurons.
        facts: which neurons they are.
        part: returns the numbers of one slice; None where there are none.
    """
    found = {one: part(one) for one in slices(mlp)}

    def named(kind: str) -> dict[str, Any]:
        return {one.read: numbers for one, numbers in found.items() if one.kind == kind}

    writes = named("writes")[""]
    return NeuronWeights(
        named("reads"), named("biases"), writes, facts.block, facts.index, facts.mean
    )


def check_maps(network: nn.Module, layout: ModelLayout) -> None:
    """Refuse a layout whose maps have other sizes, or lie the other way round, than it says.

    Args:
        network: transformer that the neurons are in.
        layout: where they are; its modules are there.

    Raises:
        WeightsError: naming the parameter, its shape, and what the layout says of it.
    """
    maps: dict[tuple[str, str], list[Slice]] = {}
    for one in slices(layout.mlp):
        if one.tensor == "weight":
            maps.setdefault((one.kind, one.path), []).append(one)
    for block in range(layout.num_blocks):
        for parts in maps.values():
            _check_map(network, block, parts, layout.neurons_per_block)


def _check_map(network: nn.Module, block: int, parts: list[Slice], neurons: int) -> None:
    key, weight = parts[0].key(block), parts[0].held_by(network, block)
    if weight is None or weight.ndim != 2:
        shape = "no tensor" if weight is None else f"of shape {tuple(weight.shape)}"
        raise WeightsError(f"{key!r} is {shape}; neurons need a linear map, with a 2-d weight")
    module = network.get_submodule(parts[0].path.format(block=block))
    firsts = sorted(one.first for one in parts)
    for one in parts:
        if (needed := _orientation(module, one)) != one.dim:
            advice = f"{type(module).__name__} needs features={needed}"
        elif not _fits(weight.shape[one.dim], firsts, neurons):
            advice = f"that takes {_length(firsts, neurons)} of them"
        else:
            continue
        raise WeightsError(
            f"{key!r} has the shape {tuple(weight.shape)}; the layout says features={one.dim} "
            f"(so {weight.shape[one.dim]} neurons' rows), first={firsts} and {neurons} neurons a "
            f"block: {advice}"
        )


def _orientation(module: nn.Module, part: Slice) -> int:
    """Return the dim of a map's weight that counts neurons, where its class tells it."""
    if isinstance(module, nn.Linear):
        return 1 if part.kind == "writes" else 0
    if "Conv1D" in {one.__name__ for one in type(module).__mro__}:
        return 0 if part.kind == "writes" else 1
    return part.dim


def _fits(length: int, firsts: list[int], neurons: int) -> bool:
    """Tell whether the rows of a map are those of its reads; others may stand before them."""
    apart = all(later - first >= neurons for first, later in pairwise(firsts))
    whole = _length(firsts, neurons)
    return apart and (length == whole if firsts[0] == 0 else firsts[0] > 0 and length >= whole)


def _length(firsts: list[int], neurons: int) -> int:
    return firsts[-1] + neurons
