"""What triggers make of pictures: the most like each target that each budget reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Int8, Int64, Shaped
from torch import Tensor

from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.evaluation.candidates import Candidates, Completes, images_named
from iarmem_plugin.evaluation.extraction import Targets, compared
from iarmem_plugin.interfaces import (
    AnyTrigger,
    Attempt,
    Completion,
    Condition,
    EditData,
    ModelTrigger,
    Sampling,
    Similarity,
    Trigger,
)
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.plugins.blame import author, blamed

if TYPE_CHECKING:
    from rich.progress import Progress

Best = tuple[np.ndarray, np.ndarray]
"""Similarity and agreement, dims (budget, image); -inf where there was no attempt."""
Seen = Callable[[slice, Tensor, np.ndarray, np.ndarray], None]


@dataclass(frozen=True, slots=True, repr=False)
class TriggerProtocol:
    """Which triggers are tried on which pictures, the same in every arm.

    Attributes:
        triggers: the triggers.
        candidates: pictures to bring back, pictures never seen, and more of these for thresholds.
        calibrates: which of the candidates fix thresholds, and are not reported.
        targets: what attempts are compared with, from the unmodified model.
        similarity: how alike two pictures are; its own threshold is not used.
        given: true tokens that a completion is given.
        data: images that triggers may use.
        seed: seed for what triggers draw.
        batching: pictures at a time.
        places: place of each of the candidates among those of the attack; -1 of those that
            calibrate.
        arms: names of the arms in which triggers are tried; None: in all.
        seen: is given the places, images, similarities and agreements of all attempts.
    """

    triggers: tuple[AnyTrigger, ...]
    candidates: Candidates
    calibrates: Bool[np.ndarray, " candidate"]
    targets: Targets
    similarity: Similarity
    given: int
    data: EditData
    seed: int
    batching: Batching
    places: Int64[np.ndarray, " candidate"]
    arms: frozenset[str] | None = None
    seen: Seen | None = None

    def covers(self, arm: str) -> bool:
        """Tell whether triggers are tried in an arm."""
        return self.arms is None or arm in self.arms

    def one_by_one(self) -> dict[str, TriggerProtocol]:
        """Return the same for each trigger alone, by its key."""
        return {one.key: replace(self, triggers=(one,)) for one in self.triggers}

    def attempted(self, model: Completes, progress: Progress | None = None) -> xr.Dataset:
        """Try to bring the pictures back by a model, edited or not.

        Args:
            model: the model; it comes back as it was.
            progress: shows a bar for each trigger.

        Returns:
            dims (attempt, candidate): ``similarity``, float32, and ``agreement``, float64, of the
            attempt at each budget that is most like the target; each the largest by itself.
            Coordinates ``trigger``, ``budget`` and ``unit`` of an attempt; ``image``, ``path``,
            ``label``, ``group``, ``role`` and ``calibrates`` of a candidate.

        Raises:
            InputError: a trigger cannot be used with this model or these data.
            PluginError: a trigger returns something else.
        """
        # a caller's inference mode would leave no gradients to a trigger that needs them
        with torch.inference_mode(False), model.borrowed():
            parts = [self._by(trigger, model, progress) for trigger in self.triggers]
        return xr.concat(parts, "attempt").assign_coords(self._candidates())

    def subset(self, positions: np.ndarray) -> TriggerProtocol:
        """Return the same for some of the candidates."""
        some = self.candidates.subset(positions)
        return replace(
            self,
            candidates=some,
            calibrates=self.calibrates[positions],
            targets=self.targets.subset(positions, some),
            places=self.places[positions],
        )

    def on(self, half: Int8[np.ndarray, " candidate"], number: int) -> TriggerProtocol:
        """Return the same for one half of the candidates, and every other one that calibrates.

        Args:
            half: half of each candidate of the attack.
            number: the half that is meant.
        """
        return self.subset(np.concatenate([self._tried(half, number), self._fixing(number)]))

    def whole(
        self, parts: Sequence[xr.Dataset], half: Int8[np.ndarray, " candidate"]
    ) -> xr.Dataset:
        """Join what came out of the two halves, in the order of the candidates."""
        every = [[self._tried(half, one), self._fixing(one)] for one in (0, 1)]
        order = np.concatenate([place for one in every for place in one])
        return xr.concat(parts, "candidate").isel(candidate=np.argsort(order))

    def _tried(self, half: np.ndarray, number: int) -> np.ndarray:
        return np.flatnonzero(~self.calibrates & (half[self.places] == number))

    def _fixing(self, number: int) -> np.ndarray:
        return np.flatnonzero(self.calibrates)[number::2]

    @property
    def provenance(self) -> dict[str, Any]:
        """Return how pictures are brought back; JSON values."""
        return {
            "triggers": {one.key: dict(one.parameters) for one in self.triggers},
            "prefix_tokens": self.given,
            "similarity": self.similarity.name,
            "reference": self.targets.reference,
            "seed": self.seed,
            "calibrating": int(self.calibrates.sum()),
        }

    def _candidates(self) -> dict[str, Any]:
        images = self.candidates.images
        return {
            "image": ("candidate", np.asarray(images.ids)),
            "path": ("candidate", np.asarray(images.paths, dtype=np.str_)),
            "label": ("candidate", np.asarray(images.labels)),
            "group": ("candidate", self.candidates.group),
            "role": ("candidate", self.candidates.role),
            "calibrates": ("candidate", self.calibrates),
        }

    def _by(self, trigger: AnyTrigger, model: Completes, progress: Progress | None) -> xr.Dataset:
        found = self._best(trigger, model, progress)
        if not np.isfinite(found[0]).all():
            raise PluginError(
                f"{author(trigger)} gave no attempt, or one that cannot be compared, at one of its "
                f"budgets {list(trigger.budgets)}"
            )
        count = len(trigger.budgets)
        return xr.Dataset(
            {
                name: (("attempt", "candidate"), values)
                for name, values in zip(("similarity", "agreement"), found, strict=True)
            },
            coords={
                "trigger": ("attempt", np.array([trigger.key] * count)),
                "budget": ("attempt", np.array(trigger.budgets)),
                "unit": ("attempt", np.array([trigger.unit] * count)),
            },
        )

    def _best(self, trigger: AnyTrigger, model: Completes, progress: Progress | None) -> Best:
        if isinstance(trigger, ModelTrigger):
            return self._by_models(trigger, model, progress)

        def tried(rows: slice) -> Best:
            tokens = self.targets.tokens[rows].to(model.device, copy=True)  # a trigger may write
            with blamed(trigger):
                attempts = trigger.attempts(
                    model, tokens, self._told(rows, model), given=self.given, seed=self.seed
                )
            return self._kept(trigger, attempts, rows, model)

        bar = f"trigger {trigger.key}"
        parts = self.batching.over(len(self.candidates), tried, progress=progress, description=bar)
        values, shares = zip(*parts, strict=True)
        return np.concatenate(values, 1), np.concatenate(shares, 1)

    def _by_models(
        self, trigger: ModelTrigger, model: Completes, progress: Progress | None
    ) -> Best:
        size = (len(trigger.budgets), len(self.candidates))
        found: list[Best] = [(np.full(size, -np.inf, np.float32), np.full(size, -np.inf))]
        with blamed(trigger), closing(trigger.models(model, self.data, seed=self.seed)) as made:
            for spent, changed in made:
                bar = f"trigger {trigger.key}, {spent} {trigger.unit}"

                def tried(rows: slice, changed: Any = changed, spent: int = spent) -> Best:
                    known = self.targets.tokens[rows, : self.given].to(model.device)
                    tokens = changed.complete(known, self._told(rows, model), Sampling())
                    attempt = Attempt(spent, tokens, self.given)
                    return self._kept(trigger, iter([attempt]), rows, model)

                parts = self.batching.over(
                    len(self.candidates), tried, progress=progress, description=bar
                )
                values, shares = zip(*parts, strict=True)
                found.append((np.concatenate(values, 1), np.concatenate(shares, 1)))
        values, shares = (np.max(part, axis=0) for part in zip(*found, strict=True))
        return values, shares

    def _told(self, rows: slice, model: Completes) -> Condition:
        return Condition.of_images(self.candidates.images, rows).copy(model.device)

    def _kept(
        self, trigger: AnyTrigger, attempts: Iterator[Attempt], rows: slice, model: Completes
    ) -> Best:
        """Return the best of the attempts within each budget, beyond the one before."""
        size = (len(trigger.budgets), rows.stop - rows.start)
        values, shares = np.full(size, -np.inf, np.float32), np.full(size, -np.inf)
        names = self.candidates.images.paths[rows]
        target = self.targets.at(rows, model.device)
        with ExitStack() as held, blamed(trigger), images_named(names):
            held.callback(getattr(attempts, "close", tuple))  # also where one cannot be compared
            for one in attempts:
                place = _place(trigger, one, target.tokens)
                completion = Completion(model.decode(one.tokens), one.tokens)
                alike = compared(self.similarity, completion, target, names).float().cpu().numpy()
                agreeing = _agreement(one, target.tokens)
                values[place] = np.maximum(values[place], alike)
                shares[place] = np.maximum(shares[place], agreeing)
                if self.seen is not None:
                    self.seen(rows, completion.images, alike, agreeing)
        return values, shares


def _place(trigger: AnyTrigger, one: object, true: Tensor) -> int:
    """Return the number of the smallest budget that allows for an attempt."""
    budgets = trigger.budgets
    if not isinstance(one, Attempt) or one.tokens.shape != true.shape:
        raise PluginError(
            f"{author(trigger)} gave no Attempt with all tokens of {len(true)} pictures"
        )
    if not 0 <= one.spent <= budgets[-1] or not 0 <= one.given < true.shape[1]:
        raise PluginError(
            f"{author(trigger)} spent {one.spent} {trigger.unit} and gave {one.given} tokens; its "
            f"budgets are {list(budgets)}, and a picture has {true.shape[1]} tokens"
        )
    return int(np.searchsorted(budgets, one.spent))


def _agreement(
    one: Attempt, true: Shaped[Tensor, "image token *rest"]
) -> Shaped[np.ndarray, " image"]:
    equal = (one.tokens == true).flatten(2).all(2) if true.ndim > 2 else one.tokens == true  # bits
    share: np.ndarray = equal[:, one.given :].double().mean(1).cpu().numpy()
    return share


def check_triggers(triggers: Sequence[object]) -> Mapping[str, AnyTrigger]:
    """Return triggers by their keys.

    Raises:
        PluginError: one is no trigger.
        InputError: two are the same.
    """
    found: dict[str, AnyTrigger] = {}
    for one in triggers:
        if not isinstance(one, Trigger | ModelTrigger):
            raise PluginError(f"{type(one).__name__} is no trigger; give instances of triggers")
        if one.key in found:
            raise InputError(f"the trigger {one.key!r} was given twice; give each once")
        found[one.key] = one
    return found
