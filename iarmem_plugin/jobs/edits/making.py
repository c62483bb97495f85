"""An edit of a whole model, made for a while: what it is given, and that the model comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from iarmem_plugin.borrowing import generators_kept
from iarmem_plugin.checks import check_kind
from iarmem_plugin.data.images import Images
from iarmem_plugin.data.opening import check_conditions, same_pictures
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.evaluation.candidates import Candidates, Completes
from iarmem_plugin.interfaces import EditData, ModelEdit
from iarmem_plugin.interfaces.edits import EDIT_PARTS
from iarmem_plugin.jobs.contrast import TRIED
from iarmem_plugin.models.provenance import weights_sha256
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.plugins.blame import author, blamed
from iarmem_plugin.text import shown


@contextmanager
def edited_by(
    edit: ModelEdit, model: ImageARModel, data: EditData, *, seed: int = 0
) -> Iterator[Completes]:
    """Change a model by an edit for a while, and see that it comes back.

    Args:
        edit: what is done to it.
        model: the unmodified model.
        data: images that the edit may use.
        seed: seed for whatever it draws at random.

    Yields:
        the edited model, which completes and predicts.

    Raises:
        InputError: the data lack what the edit needs, or the model is edited already.
        PluginError: the edit gives something else than a model, or leaves the weights changed.
    """
    check_needs(edit, data)
    if model._overlay:
        raise InputError(
            "this model is edited through the trace, so its weights are not those that it computes "
            "with; give the unmodified model"
        )
    before = weights_sha256(model)
    try:
        with ExitStack() as held:
            # a caller's inference mode would leave no gradients to an edit that needs them
            with generators_kept(model.device), torch.inference_mode(False), blamed(edit):
                edited: object = held.enter_context(edit.edited(model, data, seed=seed))
            if not isinstance(edited, Completes):
                raise PluginError(
                    f"{author(edit)} gave a {type(edited).__name__}; expected a model, or what "
                    "completes and predicts like one"
                )
            yield edited
    finally:
        if weights_sha256(model) != before:
            raise PluginError(
                f"{author(edit)} changed the model's weights and did not put them back; it is to "
                "leave the model as it was, so load the model again"
            )


def check_needs(edit: ModelEdit, data: EditData) -> None:
    """Refuse data that lack what an edit cannot do without.

    Raises:
        InputError: naming what is missing.
        PluginError: it needs what there is not in any data.
    """
    if unknown := sorted(set(edit.needs) - EDIT_PARTS.keys()):
        raise PluginError(
            f"{author(edit)} needs {shown(unknown[0], 40)!r}; there are {', '.join(EDIT_PARTS)}"
        )
    for part in sorted(edit.needs):
        try:
            data.having(part)
        except InputError as error:
            raise InputError(f"the edit {shown(edit.name)!r} cannot be made: {error}") from error


def edit_data(
    candidates: Candidates, retained: Images | None, calibration: Images | None
) -> EditData:
    """Return what edits may use: of the candidates, those that are neither members nor held out.

    Args:
        candidates: all candidates.
        retained: images of the training that the model is to keep.
        calibration: images that it was not trained on, and that are not reported.
    """
    positions = np.flatnonzero(np.isin(candidates.role, TRIED))
    forgotten = candidates.images.subset(positions) if len(positions) else None
    return EditData(forgotten, retained, calibration)


def check_retained(model: ImageARModel, retained: Images | None, candidates: Candidates) -> None:
    """Refuse images to retain that cannot be used, or that are candidates.

    Raises:
        InputError: there are none, they lack what the model must be told, or one is a candidate.
    """
    if retained is None:
        return
    check_kind("the images to retain", retained, Images, "Images, such as Images.from_folder(path)")
    if not len(retained):
        raise InputError("there are no images to retain; leave them out, or give some")
    check_conditions(retained, model.adapter.conditions, model.adapter.variant.num_classes)
    if found := same_pictures(retained, [candidates.images]):
        raise InputError(
            f"{len(found)} of {len(retained)} images to retain are among the candidates, such as "
            f"{shown(found[0])}; what an edit trains on must be none that is reported"
        )
