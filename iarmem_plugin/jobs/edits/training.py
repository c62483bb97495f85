"""Short training: on images that are to be kept, or against those that are to be forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from iarmem_plugin.checks import check_integer, check_number
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import EditData, ModelEdit
from iarmem_plugin.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from iarmem_plugin.models.tracing import ImageARModel


class _Trained(ModelEdit):
    """Trains all of the network by AdamW, in evaluation mode, and puts it back."""

    def __init__(self, steps: int, lr: float, batch_size: int) -> None:
        check_integer("steps", steps, least=1)
        check_integer("batch_size", batch_size, least=1)
        check_number("lr", lr)
        if lr <= 0:
            raise InputError(f"lr is {lr}; expected a number above 0")
        self.steps, self.lr, self.batch_size = steps, lr, batch_size


class FineTune(_Trained):
    """Train shortly on images that are to be kept, away from the candidates.

    The loss is the teacher-forced NLL of centre views. All of the network is trained by AdamW, in
    its own precision and in evaluation mode (nothing is dropped); memory for its weights once more
    and for AdamW's two moments. Batches are drawn in shuffled rounds.

    Args:
        steps: number of steps.
        lr: step size.
        batch_size: images in a step.

    Raises:
        InputError: a number that is not above 0.
    """

    name = "fine-tune"
    needs = frozenset({"retained"})

    def __init__(self, steps: int = 60, lr: float = 3e-4, batch_size: int = 32) -> None:
        super().__init__(steps, lr, batch_size)

    @contextmanager
    def edited(self, model: ImageARModel, data: EditData, *, seed: int) -> Iterator[ImageARModel]:
        """Train the model, and put its weights back."""
        from iarmem_plugin.jobs.edits.descent import Descent, lent

        terms = [(1.0, data.having("retained"))]
        with lent(model):
            Descent(model, terms, self.batch_size, seed).run(self.steps, self.lr)
            yield model


class GradientAscent(_Trained):
    """Raise the loss of the candidates, while that of images to be kept is held down.

    The loss is that of `FineTune`: `weight` times the retained images', minus the candidates'. It
    has no lower bound, so more steps always do more damage.

    Args:
        steps: number of steps.
        lr: step size.
        weight: weight of the retained images' loss; 0 leaves them out.
        batch_size: images of either side in a step.

    Raises:
        InputError: a weight below 0, or another number that is not above 0.

    Reference: Jang et al. 2023, arXiv 2210.01504 (gradient ascent on what is to be forgotten).
    """

    name = "gradient-ascent"

    def __init__(
        self, steps: int = 20, lr: float = 1e-4, weight: float = 1.0, batch_size: int = 32
    ) -> None:
        super().__init__(steps, lr, batch_size)
        check_number("weight", weight)
        if weight < 0:
            raise InputError(f"weight is {weight}; expected a number of 0 or more")
        self.weight = weight
        self.needs = frozenset({"candidates", "retained"} if weight else {"candidates"})

    @contextmanager
    def edited(self, model: ImageARModel, data: EditData, *, seed: int) -> Iterator[ImageARModel]:
        """Train the model, and put its weights back."""
        from iarmem_plugin.jobs.edits.descent import Descent, lent

        terms = [(-1.0, data.having("candidates"))]
        if self.weight:
            terms.append((self.weight, data.having("retained")))
        with lent(model):
            Descent(model, terms, self.batch_size, seed).run(self.steps, self.lr)
            yield model


@hookimpl
def provide_edits() -> Iterable[type[ModelEdit]]:
    """Provide short training, and ascent."""
    return [FineTune, GradientAscent]
