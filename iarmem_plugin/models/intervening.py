"""Edits of a wrapped model's neurons, made by its trace or in its weights, for a while."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import xarray as xr

from iarmem_plugin.borrowing import by_one_thread
from iarmem_plugin.checks import check_kind
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import ActivationIntervention, AnyIntervention, Intervention
from iarmem_plugin.models.shadows import block_path
from iarmem_plugin.models.trace_edits import TraceEdit, ValueEdit, trace_edit
from iarmem_plugin.models.tracing import ImageARModel, OutOfOrder, unreached
from iarmem_plugin.neurons.editing import EditableWeights, chosen_neurons
from iarmem_plugin.text import shown


@contextmanager
def intervene(
    model: ImageARModel,
    neurons: xr.DataArray,
    intervention: AnyIntervention,
    *,
    backend: str = "trace",
    mean: xr.DataArray | None = None,
) -> Iterator[ImageARModel]:
    """Change the selected neurons of a model for a while.

    Edits compose: a model that is edited already is edited further.

    Args:
        model: model to edit; with the backend ``"trace"`` it stays as it is.
        neurons: which neurons are selected, bool, dims (block, neuron).
        intervention: change to their weights, or to their values.
        backend: way of editing. ``"trace"`` yields an edited copy that shares the weights and
            recomputes the selected neurons at every visit of a block; the copy is a snapshot of
            these neurons and stays edited for as long as it is kept. ``"weights"`` yields the
            model itself, its weights changed in place and put back exactly, which costs nothing a
            step; values are changed by the trace alone.
        mean: mean activation of every neuron, dims (block, neuron), for what needs it; such as
            ``scores["mean_activation"].mean("scale")``.

    Raises:
        InputError: the neurons are of another model, the backend is unknown or cannot make this
            change, a mean is needed, the weights of a model are to be changed that the trace
            edits, or that another thread uses.
        BypassedNeuronsError: at the first run, if the model does not call the modules of its MLPs.
    """
    check_backend(backend)
    check_kind("the model", model, ImageARModel, "a wrapped model")
    kinds = (Intervention, ActivationIntervention)
    check_kind("the intervention", intervention, kinds, "an intervention, such as ScaleWeights()")
    chosen = chosen_neurons(model.layout, neurons, model.device, mean)
    if backend == "trace" or isinstance(intervention, ActivationIntervention):
        model._weight_edits.settle()
        weights = EditableWeights(model._adapter.network, model.layout)
        edit = trace_edit(weights, intervention, chosen, model._overlay, backend=backend)
        yield _edited(model, edit)
        return
    if model._overlay:
        raise InputError("this model is edited through the trace; edit it further with 'trace'")
    with by_one_thread(model._adapter.network), model._weight_edits.made(chosen, intervention):
        yield model


def check_backend(backend: str) -> None:
    """Refuse a way of editing that there is not.

    Raises:
        InputError: naming it.
    """
    if backend not in ("trace", "weights"):
        raise InputError(f"no backend named {shown(repr(backend), 60)}; there are: trace, weights")


def _edited(model: ImageARModel, edit: TraceEdit) -> ImageARModel:
    if not edit.blocks:
        return model
    copied = cast(ImageARModel, _store_edit(model, edit))
    if isinstance(edit, ValueEdit):  # before those of columns, which read the changed values
        earlier = sum(isinstance(one, ValueEdit) for one in model._overlay)
        copied._edits.insert(earlier, copied._edits.pop())
    copied._overlay = (*model._overlay, edit)
    return copied


def _edit_visits(tracer: Any, model: ImageARModel, edit: TraceEdit) -> None:
    """Edit every visit of the blocks, however many there are; a full prefix has none."""
    inside, asked, before = None, "", {**model.interleaver.counts}
    acts: Counter[int] = Counter()

    def module_at(path: str) -> Any:
        nonlocal asked
        asked = path
        return model._module_at(path, block)

    try:
        for _visit in tracer.iter[:]:
            for block in sorted(edit.blocks):
                waited_for = model._module_at(edit.reached.path, block)
                _ = getattr(waited_for, edit.reached.side)  # until the block comes there
                inside = block
                edit.act(module_at, block)
                inside, acts[block] = None, acts[block] + 1
    except OutOfOrder as error:
        if inside is not None:  # the block ran without that module: the edit had no effect
            raise unreached(model, asked, inside, before) from error
        for block in sorted(edit.blocks):
            if _calls(model, block, before) > acts[block]:  # it ran without what is waited for
                raise unreached(model, edit.reached.path, block) from error


def _calls(model: ImageARModel, block: int, before: Mapping[str, int]) -> int:
    """Return how often a block was called; never, where its parts are run without it."""
    key = f"{model._module_at(block_path(model.layout), block).path}.input"
    return int(model.interleaver.counts.get(key, 0)) - before.get(key, 0)


def _store_edit(
    model: ImageARModel, edit: TraceEdit
) -> Any:  # pragma: no cover  # lines in a traced block escape coverage
    with model.edit() as (tracer, edited):
        _edit_visits(tracer, model, edit)
    return edited
