"""Noise on logits: a defence that changes no weight."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from iarmem_plugin.checks import check_number
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import EditData, ModelEdit
from iarmem_plugin.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from iarmem_plugin.jobs.edits.noisy import NoisyModel
    from iarmem_plugin.models.tracing import ImageARModel


class LogitNoise(ModelEdit):
    """Add normal noise to the logits that tokens are chosen from, and predicted with.

    Completions are greedy on the noisy logits; what is predicted is the mean probability over 16
    draws. Give the deviation, or what the noise is to cost: the deviation is then found by
    bisection on the calibration images.

    Args:
        std: standard deviation, in units of the logits; None where `change` is given.
        change: change of the held-out loss at the fitted temperature, nats a token, above 0.

    Raises:
        InputError: both or none of them, or one that is not above 0.

    Reference: Kowalczuk et al. 2025, arXiv 2502.02514 (the defence).
    """

    name = "logit-noise"

    def __init__(self, std: float | None = None, change: float | None = None) -> None:
        if (std is None) == (change is None):
            raise InputError("logit-noise takes either std or change, and one of them is needed")
        for what, value in (("std", std), ("change", change)):
            if value is not None:
                check_number(what, value)
                if value <= 0:
                    raise InputError(f"{what} is {value}; expected a number above 0")
        self.std, self.change = std, change
        self.needs = frozenset(() if change is None else ("calibration",))

    @contextmanager
    def edited(self, model: ImageARModel, data: EditData, *, seed: int) -> Iterator[NoisyModel]:
        """Give a model beside this one, which stays as it is.

        Raises:
            InputError: no noise costs so much.
            PluginError: the model's adapter takes no notice of noise.
        """
        from iarmem_plugin.jobs.edits.noisy import NoisyModel, check_heard, std_for

        check_heard(model, data)
        std = self.std
        if self.change is not None:
            std = std_for(model, data.having("calibration"), self.change, seed)
        assert std is not None
        yield NoisyModel(model, std, seed)


@hookimpl
def provide_edits() -> Iterable[type[ModelEdit]]:
    """Provide noise on logits."""
    return [LogitNoise]
