"""The wrapped model: reading and editing its neurons through nnsight."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
import xarray as xr
from jaxtyping import Float, Int
from nnsight import NNsight
from nnsight.intervention.envoy import Envoy
from nnsight.intervention.interleaver import OutOfOrderError
from torch import Tensor, nn
from torch.nn import functional as F

from iarmem_plugin.errors import BypassedNeuronsError, InputError, WeightsError
from iarmem_plugin.interfaces import (
    Adapter,
    ForwardInputs,
    Intervention,
    ModelLayout,
    Sampling,
    Scale,
)
from iarmem_plugin.neurons.editing import Change, EditableWeights, WeightEdits, chosen_neurons

_SHADOWS = ("forward", "__nnsight__")  # what nnsight puts into a module's __dict__


class ImageARModel(NNsight):  # type: ignore[misc]  # nnsight is untyped
    """An image autoregressive model that nnsight can trace.

    ``with model.trace(...)`` works as on any nnsight model; `neurons` reads the reduced
    activations inside it. Completion and prediction run through the trace, so an edit made
    with `intervene` always takes effect.

    Wrapping shadows ``forward`` of the network's modules and changes nothing else; `unwrap`
    takes that back.

    Args:
        adapter: adapter whose network is wrapped.

    Raises:
        WeightsError: a module that the adapter's layout names is not there.
    """

    def __init__(self, adapter: Adapter) -> None:
        network = adapter.network
        _check_paths(network, adapter.layout)
        fresh = [module for module in network.modules() if _SHADOWS[1] not in module.__dict__]
        self._before = [(module, module.__dict__.get("forward")) for module in fresh]
        super().__init__(network, rename=dict(adapter.module_aliases))
        self._adapter = adapter
        self._layout = adapter.layout
        self._overlay: tuple[dict[int, Change], ...] = ()  # edits that the trace makes
        self._weight_edits = WeightEdits(EditableWeights(network, adapter.layout))

    @property
    def adapter(self) -> Adapter:
        """The model's adapter; on an edited model, its ``complete`` is the edited one."""
        if not self._edits:
            return self._adapter
        shown = copy.copy(self._adapter)
        setattr(shown, "complete", self.complete)  # noqa: B010  # mypy refuses a plain assignment
        return shown

    @property
    def layout(self) -> ModelLayout:
        """Where the neurons are, and which positions each scale is the mean over."""
        return self._layout

    def with_scales(self, scales: Sequence[Scale]) -> ImageARModel:
        """Return the same model, to be captured at other scales; nothing is copied.

        Args:
            scales: new scales, such as ``[model.layout.band("first row", range(1, 17))]``.

        Raises:
            InputError: positions do not predict a token, or two scales have one name.
        """
        shown = cast(ImageARModel, self._shallow_copy())
        shown._layout = self._layout.with_scales(scales)
        return shown

    def tokenize(self, images: Float[Tensor, "image 3 height width"]) -> Int[Tensor, "image token"]:
        """Turn RGB images in [0, 1] into tokens; no gradients are recorded."""
        with torch.no_grad():
            return self._adapter.tokenize(images.to(self.device))

    def decode(self, tokens: Int[Tensor, "image token"]) -> Float[Tensor, "image 3 height width"]:
        """Turn tokens into RGB images in [0, 1]; no gradients are recorded."""
        with torch.no_grad():
            return self._adapter.decode(tokens.to(self.device))

    def complete(
        self,
        prefix: Int[Tensor, "image prefix"],
        labels: Int[Tensor, " image"],
        sampling: Sampling,
    ) -> Int[Tensor, "image token"]:
        """Complete a token prefix through the trace, so that edits take effect.

        Args:
            prefix: first tokens of each image; no tokens to generate freely.
            labels: class of each image.
            sampling: how the other tokens are chosen.

        Returns:
            all tokens of each image, the prefix included.
        """
        run = partial(self._adapter.complete, sampling=sampling)
        if self.interleaver.interleaving:  # called as the function that a trace runs
            return run(prefix, labels)
        return cast(Tensor, self.interleave(run, prefix, labels))

    def logits(
        self, tokens: Int[Tensor, "image token"], labels: Int[Tensor, " image"]
    ) -> Float[Tensor, "image token vocab"]:
        """Return the logits that predict each token, teacher-forced through the trace.

        So edits take effect. What a network predicts beyond the last token is left out.

        Args:
            tokens: ground-truth tokens of each image.
            labels: class of each image.
        """
        inputs = self._adapter.teacher_forced(tokens.to(self.device), labels.to(self.device))
        with self._adapter.prepared():
            logits = cast(Tensor, self(*inputs.args, **inputs.kwargs))
        return logits[:, : tokens.shape[1]]

    def neurons(self) -> Float[Tensor, "image block scale neuron"]:
        """Read all blocks' activations, inside a teacher-forced trace of this model.

        Returns:
            float32 mean over each scale's tokens of the absolute activation after GELU.
            Save it to keep it: ``nnsight.save(model.neurons())``.

        Reference: arXiv 2509.00488, section 3.2.
        """
        blocks = range(self.layout.num_blocks)
        outputs = (self._module_at(self.layout.activation, block).output for block in blocks)
        return torch.stack([scale_means(output, self.layout.scales) for output in outputs], dim=1)

    def read_neurons(self, inputs: ForwardInputs) -> Float[Tensor, "image block scale neuron"]:
        """Run one teacher-forced pass and return `neurons`; nothing after them is computed.

        Args:
            inputs: what the adapter's `teacher_forced` returned.

        Raises:
            BypassedNeuronsError: the model does not call ``fc1`` and its activation as modules.
        """
        kept: list[Tensor] = []

        def body() -> None:
            kept.append(self.neurons())
            raise _AllRead

        try:
            with self._adapter.prepared():
                _trace(self, inputs, body)
        except OutOfOrderError as error:
            raise _bypassed(self._adapter, self.layout.activation, 0) from error
        except _AllRead:
            pass
        return kept[0]

    @contextmanager
    def borrowed(self) -> Iterator[ImageARModel]:
        """Use the model in evaluation mode without gradients, and put everything back.

        Modes and the random number generators come back as they were, exception or not.
        """
        parts = (self._adapter.network, self._adapter.tokenizer)
        modes = [(module, module.training) for part in parts for module in part.modules()]
        device = self.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            for part in parts:
                part.eval()
            try:
                with self._adapter.prepared():
                    yield self
            finally:
                for module, training in modes:
                    module.training = training

    def unwrap(self) -> nn.Module:
        """Take nnsight's shadows off the network and return it; the model is then of no use."""
        for module, forward in self._before:
            for name in _SHADOWS:
                module.__dict__.pop(name, None)
            if forward is not None:
                module.__dict__["forward"] = forward
        self._before = []
        return self._adapter.network

    def _module_at(self, path: str, block: int) -> Any:
        return self.get(path.format(block=block))

    def __call__(self, *args: Any, hook: bool = False, **kwargs: Any) -> Any:
        """Run ``forward``, with the edits of this model; nnsight's own call would skip them."""
        if self.interleaver.interleaving or hook:
            return super().__call__(*args, hook=hook, **kwargs)
        return self.interleave("__call__", *args, **kwargs)


class _AllRead(Exception):  # noqa: N818  # not an error: it ends the pass
    """Ends a pass after the last neuron."""


def scale_means(
    activation: Float[Tensor, "image token neuron"], scales: tuple[Scale, ...]
) -> Float[Tensor, "image scale neuron"]:
    """Return the mean of |activation| over each scale's tokens, in float32.

    Args:
        activation: output of one block's activation module.
        scales: scales that the tokens belong to.

    Raises:
        InputError: a scale reaches beyond the tokens.
    """
    means = []
    for scale in scales:
        first, last = scale.tokens[0], scale.tokens[-1]
        if last >= activation.shape[1]:
            raise InputError(
                f"scale {scale.name!r} has the positions {scale.spans}, "
                f"the model's are 0 to {activation.shape[1] - 1}"
            )
        adjacent = last - first + 1 == len(scale.tokens)
        part = activation[:, first : last + 1] if adjacent else activation[:, list(scale.tokens)]
        means.append(part.abs().mean(dim=1, dtype=torch.float32))
    return torch.stack(means, dim=1)


def without_nnsight(model: object) -> object:
    """Return the module inside an nnsight model, or what was given."""
    return model._module if isinstance(model, Envoy) else model


@contextmanager
def wrapped(adapter: Adapter) -> Iterator[ImageARModel]:
    """Wrap an adapter's network for a while; afterwards ``forward`` is no longer shadowed."""
    model = ImageARModel(adapter)
    try:
        yield model
    finally:
        model.unwrap()


@contextmanager
def intervene(
    model: ImageARModel,
    neurons: xr.DataArray,
    intervention: Intervention,
    *,
    backend: str = "trace",
) -> Iterator[ImageARModel]:
    """Change the selected neurons of a model for a while.

    Edits compose: a model that is edited already is edited further.

    Args:
        model: model to edit; with the backend ``"trace"`` it stays as it is.
        neurons: which neurons are selected, bool, dims (block, neuron).
        intervention: change to their weights.
        backend: way of editing. ``"trace"`` yields an edited copy that shares the weights and
            recomputes the selected neurons at every visit of a block; the copy is a snapshot of
            these neurons and stays edited for as long as it is kept. ``"weights"`` yields the
            model itself, its weights changed in place and put back exactly, which costs nothing a
            step.

    Raises:
        InputError: the neurons are of another model, the backend is unknown, or the weights of a
            model are to be changed that the trace edits.
        BypassedNeuronsError: at the first run, if the model does not call ``fc1`` as a module.
    """
    if backend not in ("trace", "weights"):
        raise InputError(f"no backend named {backend!r}; there are: trace, weights")
    chosen = chosen_neurons(model.layout, neurons, model.device)
    if backend == "trace":
        weights = EditableWeights(model._adapter.network, model.layout)
        changes = {
            block: weights.change(block, index, intervention, model._overlay)
            for block, index in chosen.items()
        }
        yield _edited(model, changes)
        return
    if model._overlay:
        raise InputError("this model is edited through the trace; edit it further with 'trace'")
    with model._weight_edits.made(chosen, intervention):
        yield model


def _edited(model: ImageARModel, changes: dict[int, Change]) -> ImageARModel:
    if not changes:
        return model
    copied = cast(ImageARModel, _store_edit(model, changes))
    copied._overlay = (*model._overlay, changes)
    return copied


def _edit_block(model: ImageARModel, block: int, change: Change) -> None:
    """Recompute the selected neurons of one visit, inside a trace."""
    fc1 = model._module_at(model.layout.fc1, block)
    rows = F.linear(fc1.input, change.after.fc1_weight, change.after.fc1_bias)
    fc1.output = fc1.output.index_copy(-1, change.index, rows)
    if change.added is not None:
        fc2 = model._module_at(model.layout.fc2, block)
        read = fc2.input.index_select(-1, change.index)
        fc2.output = fc2.output + F.linear(read, change.added)


def _edit_visits(tracer: Any, model: ImageARModel, changes: Mapping[int, Change]) -> None:
    """Edit every visit of the blocks, however many there are; a full prefix has none."""
    inside = None
    try:
        for _visit in tracer.iter[:]:
            for block in sorted(changes):
                _ = model._module_at(_block_path(model.layout), block).input  # waits for the visit
                inside = block
                _edit_block(model, block, changes[block])
                inside = None
    except OutOfOrderError as error:
        if inside is not None:  # the block ran without its fc1: the edit had no effect
            raise _bypassed(model._adapter, model.layout.fc1, inside) from error


def _block_path(layout: ModelLayout) -> str:
    return layout.fc1.partition("{block}")[0] + "{block}"


def _store_edit(
    model: ImageARModel, changes: Mapping[int, Change]
) -> Any:  # pragma: no cover  # lines in a traced block escape coverage
    with model.edit() as (tracer, edited):
        _edit_visits(tracer, model, changes)
    return edited


def _trace(
    model: ImageARModel, inputs: ForwardInputs, body: Callable[[], None]
) -> None:  # pragma: no cover  # as above
    with model.trace(*inputs.args, **inputs.kwargs):
        body()


def _bypassed(adapter: Adapter, path: str, block: int) -> BypassedNeuronsError:
    advice = f" ({adapter.fused_advice})" if adapter.fused_advice else ""
    return BypassedNeuronsError(
        f"the model never called {path.format(block=block)!r}: a fused MLP computes it without the "
        "module, so its neurons can be neither read nor edited; build the model without fused "
        f"kernels{advice}"
    )


def _check_paths(network: nn.Module, layout: ModelLayout) -> None:
    for block in range(layout.num_blocks):
        for path in (layout.fc1, layout.activation, layout.fc2):
            name = path.format(block=block)
            try:
                module = network.get_submodule(name)
            except AttributeError as error:
                message = f"the model has no module {name!r}, which holds neurons"
                raise WeightsError(message) from error
            if next((p for p in module.parameters() if p.is_meta), None) is not None:
                raise WeightsError(f"{name!r} has no weights yet (meta device); load them first")
