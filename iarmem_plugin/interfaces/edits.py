"""What changes a whole model, and chooses no neurons: a baseline for edits of neurons."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces.plugin import Plugin

if TYPE_CHECKING:
    from iarmem_plugin.data.images import Images

EDIT_PARTS = {
    "candidates": "candidates that the model is to forget",
    "retained": "images of its training that the model is to keep; give some as retained=...",
    "calibration": "images that it was not trained on; give losses=loss_protocol(...)",
}
"""The parts of `EditData`, and what is said where one is missing."""


@dataclass(frozen=True, slots=True)
class EditData:
    """Images that an edit may use; a part is None where there are none.

    Attributes:
        candidates: images that the model is to forget.
        retained: images of its training that it is to keep; none of them is a candidate.
        calibration: images that it was not trained on, and that are not reported.
    """

    candidates: Images | None = None
    retained: Images | None = None
    calibration: Images | None = None

    def having(self, part: str) -> Images:
        """Return one part.

        Args:
            part: its name.

        Raises:
            InputError: there is none.
        """
        found: Images | None = getattr(self, part)
        if found is None:
            raise InputError(f"there are no {EDIT_PARTS[part]}")
        return found


class ModelEdit(Plugin):
    """Changes a whole model for a while, such as by training; options go to ``__init__``.

    Attributes:
        needs: names of the parts of `EditData` that it cannot do without, of the class or of an
            instance.
    """

    kind = "edit"
    needs: frozenset[str] = frozenset()

    @abstractmethod
    def edited(self, model: Any, data: EditData, *, seed: int) -> AbstractContextManager[Any]:
        """Change a model inside a ``with`` block, and put it back exactly, exception or not.

        Whoever enters it compares the weights' hash before and after.

        Args:
            model: the wrapped model, an `ImageARModel`, unmodified.
            data: images to use.
            seed: seed for whatever is drawn at random.

        Returns:
            context manager that gives the edited model: an `ImageARModel`, or what completes and
            predicts like one, see `Completes` in ``iarmem_plugin.evaluation.candidates``. What it
            gives an image does not depend on the other images of a batch.
        """
