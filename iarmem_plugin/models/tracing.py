"""The wrapped model: reading and editing its neurons through nnsight."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
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

from iarmem_plugin.borrowing import generators_kept, uninterrupted
from iarmem_plugin.errors import BypassedNeuronsError, InputError
from iarmem_plugin.interfaces import (
    Adapter,
    ForwardInputs,
    Intervention,
    ModelLayout,
    Sampling,
    Scale,
)
from iarmem_plugin.models.reduction import scale_means
from iarmem_plugin.models.shadows import Shadows, block_path
from iarmem_plugin.models.trace_edits import TraceEdit, Watch, edited_entries
from iarmem_plugin.neurons.editing import EditableWeights, WeightEdits, chosen_neurons
from iarmem_plugin.plugins.blame import blamed

_WITHOUT_EDITS = {  # what the network would do without the edits that a trace makes
    "load_state_dict": "would change the weights under its edit",
    "save_pretrained": "would save the weights without its edit",
    "push_to_hub": "would publish the weights without its edit",
}


class ImageARModel(NNsight):  # type: ignore[misc]  # nnsight is untyped
    """An image autoregressive model that nnsight can trace.

    ``with model.trace(...)`` works as on any nnsight model; `neurons` reads the reduced
    activations inside it. Completion and prediction run through the trace, so an edit made
    with `intervene` always takes effect.

    Wrapping shadows ``forward`` of the network's modules and changes nothing else; `unwrap`
    takes that back when no other wrapper of the network is left.

    Args:
        adapter: adapter whose network is wrapped.

    Raises:
        WeightsError: a module that the adapter's layout names is not there.
    """

    def __init__(self, adapter: Adapter) -> None:
        network = adapter.network
        self._shadows = Shadows(network, adapter.layout)
        super().__init__(network, rename=dict(adapter.module_aliases))
        self._shadows.put_on()
        self._adapter = adapter
        self._layout = adapter.layout
        self._overlay: tuple[TraceEdit, ...] = ()
        self._weight_edits = WeightEdits.of(EditableWeights(network, adapter.layout))

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
        with torch.no_grad(), blamed(self._adapter):
            return self._adapter.tokenize(images.to(self.device))

    def decode(self, tokens: Int[Tensor, "image token"]) -> Float[Tensor, "image 3 height width"]:
        """Turn tokens into RGB images in [0, 1]; no gradients are recorded."""
        with torch.no_grad(), blamed(self._adapter):
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
        watch = self._watch()
        tokens = cast(Tensor, self.interleave(run, prefix, labels))
        self._check_edits(watch, visited=tokens.shape[1] > prefix.shape[1])
        return tokens

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

        watch = self._watch()
        try:
            with self._adapter.prepared():
                _trace(self, inputs, body)
        except OutOfOrderError as error:
            raise _unreached(self, self.layout.activation, 0) from error
        except _AllRead:
            self._check_edits(watch, visited=True)
        return kept[0]

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the network's state dict, of this model as it computes: with its edits.

        Entries that are edited are copies, so they stay as they are when the edit is over.

        Args:
            args: what the network's own ``state_dict`` takes.
            kwargs: the same by name.

        Raises:
            InputError: the edit is made by the trace, and its weights have no entry of their own.
        """
        self._weight_edits.settle()
        state: dict[str, Any] = self._adapter.network.state_dict(*args, **kwargs)
        return state | edited_entries(
            state,
            self._layout,
            self._overlay,
            copied=self._weight_edits.blocks,
            prefix=kwargs.get("prefix", ""),
        )

    @contextmanager
    def borrowed(self) -> Iterator[ImageARModel]:
        """Use the model in evaluation mode without gradients, and put everything back.

        Modes and the random number generators come back as they were, exception or not.
        """
        self._weight_edits.settle()
        parts = (self._adapter.network, self._adapter.tokenizer)
        modes = [(module, module.training) for part in parts for module in part.modules()]
        with generators_kept(self.device), torch.no_grad():
            try:
                for part in parts:
                    part.eval()
                with self._adapter.prepared():
                    yield self
            finally:
                with uninterrupted():
                    for module, training in modes:
                        module.training = training

    def unwrap(self) -> nn.Module:
        """Take nnsight's shadows off the network and return it; the model is then of no use.

        They stay where another wrapper of the network still needs them.
        """
        self._shadows.take_off(self.interleaver)
        return self._adapter.network

    def interleave(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a function of the network with the edits of this model; see nnsight.

        Raises:
            BypassedNeuronsError: something keeps the edits from taking effect.
        """
        self._weight_edits.settle()
        if self._overlay and (found := self._shadows.obstacle(self.interleaver)):
            raise BypassedNeuronsError(f"an edit of this model cannot act: {found}")
        return super().interleave(fn, *args, **kwargs)

    def _watch(self) -> Watch:
        counts, fc1 = self.interleaver.counts, self._layout.fc1
        return Watch(
            self._overlay,
            lambda block: counts.get(f"{self._module_at(fc1, block).path}.input", 0),
        )

    def _check_edits(self, watch: Watch, *, visited: bool) -> None:
        missed = watch.missed(visited=visited)
        if missed is not None:
            raise _unreached(self, self._layout.fc1, missed)

    def _module_at(self, path: str, block: int) -> Any:
        return self.get(path.format(block=block))

    def __call__(self, *args: Any, hook: bool = False, **kwargs: Any) -> Any:
        """Run ``forward``, with the edits of this model; nnsight's own call would skip them."""
        if self.interleaver.interleaving or hook:
            return super().__call__(*args, hook=hook, **kwargs)
        watch = self._watch()
        output = self.interleave("__call__", *args, **kwargs)
        self._check_edits(watch, visited=True)
        return output

    def __getattr__(self, name: str) -> Any:
        """Return what the network has of that name, but for what would leave edits out."""
        if name in _WITHOUT_EDITS and self.__dict__.get("_overlay"):
            raise InputError(
                f"{name} of a model that the trace edits {_WITHOUT_EDITS[name]}: save its "
                "state_dict(), or edit with backend='weights'"
            )
        return super().__getattr__(name)


class _AllRead(Exception):  # noqa: N818  # not an error: it ends the pass
    """Ends a pass after the last neuron."""


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
        model._weight_edits.settle()
        weights = EditableWeights(model._adapter.network, model.layout)
        earlier = [edit.changes for edit in model._overlay]
        changes = {
            block: weights.change(block, index, intervention, earlier)
            for block, index in chosen.items()
        }
        yield _edited(model, TraceEdit(changes))
        return
    if model._overlay:
        raise InputError("this model is edited through the trace; edit it further with 'trace'")
    with model._weight_edits.made(chosen, intervention):
        yield model


def _edited(model: ImageARModel, edit: TraceEdit) -> ImageARModel:
    if not edit.changes:
        return model
    copied = cast(ImageARModel, _store_edit(model, edit))
    copied._overlay = (*model._overlay, edit)
    return copied


def _edit_visits(tracer: Any, model: ImageARModel, edit: TraceEdit) -> None:
    """Edit every visit of the blocks, however many there are; a full prefix has none."""
    layout, inside = model.layout, None
    try:
        for _visit in tracer.iter[:]:
            for block in sorted(edit.changes):
                _ = model._module_at(block_path(layout), block).input  # waits for the visit
                inside = block
                fc1, fc2 = (model._module_at(path, block) for path in (layout.fc1, layout.fc2))
                edit.act(fc1, fc2, block)
                inside = None
    except OutOfOrderError as error:
        if inside is not None:  # the block ran without its fc1: the edit had no effect
            raise _unreached(model, layout.fc1, inside) from error


def _store_edit(
    model: ImageARModel, edit: TraceEdit
) -> Any:  # pragma: no cover  # lines in a traced block escape coverage
    with model.edit() as (tracer, edited):
        _edit_visits(tracer, model, edit)
    return edited


def _trace(
    model: ImageARModel, inputs: ForwardInputs, body: Callable[[], None]
) -> None:  # pragma: no cover  # as above
    with model.trace(*inputs.args, **inputs.kwargs):
        body()


def _unreached(model: ImageARModel, path: str, block: int) -> BypassedNeuronsError:
    if found := model._shadows.obstacle(model.interleaver):
        return BypassedNeuronsError(f"neurons can be neither read nor edited: {found}")
    advice = f" ({model._adapter.fused_advice})" if model._adapter.fused_advice else ""
    return BypassedNeuronsError(
        f"the model never called {path.format(block=block)!r}: a fused MLP computes it without the "
        "module, so its neurons can be neither read nor edited; build the model without fused "
        f"kernels{advice}"
    )
