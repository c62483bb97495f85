"""What all arms share, made by one worker and read by the others: tokens, thresholds, scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from iarmem_plugin.activations.leaving_out import LeavingOut
from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.images import Images
from iarmem_plugin.evaluation.candidates import Candidates, centre_views
from iarmem_plugin.evaluation.extraction import calibrate, stored_tokens
from iarmem_plugin.evaluation.ranking.pieces import forget_pieces
from iarmem_plugin.evaluation.ranking.ranking import Ranking
from iarmem_plugin.evaluation.ranking.run import rank
from iarmem_plugin.evaluation.recognition import Recognition
from iarmem_plugin.interfaces import ImageScorer, Quality, Similarity, TunedSampling
from iarmem_plugin.jobs.attack import Attack, taken_views
from iarmem_plugin.jobs.compare.inputs import content_sha256, shared_settings, stamps_sha256
from iarmem_plugin.jobs.contrast import CrossFit, contrast, cross_fit, halves, scored_on
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.jobs.measuring import centred, features_of, tune_sampling
from iarmem_plugin.jobs.protocol import RATE, warn_of_few
from iarmem_plugin.models.batching import Batching
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.plugins.blame import described
from iarmem_plugin.plugins.create import create
from iarmem_plugin.report.document import plain
from iarmem_plugin.report.netcdf import restored, storable
from iarmem_plugin.stages import Cell, Cells

if TYPE_CHECKING:
    from rich.progress import Progress

RANKING = "ranking"
_NOT_OF_TOKENS = ("weights_sha256", "torch_threads")


@dataclass(frozen=True, slots=True, repr=False)
class Shared:
    """Makes what all arms share, each piece once for all workers.

    Attributes:
        cells: where it is kept.
        model: the unmodified model.
        made_by: what `model_provenance` says of it.
        batch_size: images at a time.
        seed: of what is drawn.
        view: which view of the training is completed; None takes the centre view.
        progress: where progress bars may be shown.
    """

    cells: Cells
    model: ImageARModel
    made_by: Mapping[str, Any]
    batch_size: int
    seed: int
    progress: Progress | None = None
    view: int | None = None

    def tokens(self, images: Images, name: str) -> Tensor:
        """Return the tokens of pictures, int64 where they are numbers of a vocabulary.

        Args:
            images: the pictures; one view of each is taken.
            name: what they are, for messages.
        """
        views = taken_views(self.model, self.view)

        def tokenize(_: Cell) -> xr.DataTree:
            def read(rows: slice) -> Tensor:
                pixels = centre_views(images, views, rows).to(self.model.device)
                return self.model.tokenize(pixels).cpu()

            with self.model.borrowed():
                parts = Batching(self.batch_size).over(
                    len(images), read, progress=self.progress, description=f"reading {name}"
                )
                tokens = torch.cat(list(parts)).numpy()
            kept = {"tokens": stored_tokens(tokens)}
            return _tree(xr.Dataset(kept, attrs={"dtype": str(tokens.dtype)}))

        known = {key: one for key, one in self._facts().items() if key not in _NOT_OF_TOKENS}
        inputs = {**known, "views": plain(views.provenance), "pictures": content_sha256(images)}
        found = self._one("tokens", name, inputs, tokenize)
        return torch.from_numpy(found["tokens"].values.astype(found.attrs["dtype"]))

    def ranking(self, images: Images) -> Ranking:
        """Rank training images by how well they are predicted; others wait for who does it."""
        cell = Cell("ranking", "training images", self._facts() | {"images": stamps_sha256(images)})
        file, cache = self.cells.folder / f"{cell.key}.nc", self.cells.folder / RANKING

        def make() -> None:
            how: Any = {"cache": cache, "batch_size": self.batch_size}
            rank(self.model, images, **how, progress=self.progress).save(file)
            forget_pieces(cache)

        self.cells.wait_for(cell, make)
        return Ranking.load(file)

    def fix_thresholds(
        self, attack: Attack, similarity: Similarity, recognition: Recognition, *, given: bool
    ) -> None:
        """Fix thresholds on pictures that were not shown, as the unmodified model completes them.

        Args:
            attack: on these pictures.
            similarity: its threshold is fixed, unless it was given.
            recognition: its threshold is fixed.
            given: whether the similarity's threshold was given.
        """
        settings = shared_settings(self.made_by, attack, None)["completions"]
        settings |= {"batch_size": self.batch_size}
        found = self._one(
            *("thresholds", "held-out pictures", settings),
            lambda _: _tree(attack.run(self.model, self.progress)),
        )
        source = "held-out pictures that are not reported, unmodified model"
        recognition.calibrate(found, rate=RATE, source=source)
        if not given:
            calibrate(similarity, found["similarity"].to_numpy(), rate=RATE, source=source)
            warn_of_few(found.sizes["candidate"], similarity.threshold)

    def unitmem(self, captured: Images) -> xr.Dataset:
        """Score the model's neurons by UnitMem on some pictures."""
        options = CaptureOptions(seed=self.seed)
        inputs = {
            **self._facts(),
            "pictures": content_sha256(captured),
            "views": options.views,
            "seed": self.seed,
        }
        score = partial(localize, self.model, captured, options=options, progress=self.progress)
        return self._one("scores", "UnitMem", inputs, lambda _: _tree(score()))

    def unitmem_split(
        self, captured: Images, candidates: Candidates, splits: int
    ) -> tuple[CrossFit, ...]:
        """Score the model's neurons by UnitMem without each half of the candidates, in one capture.

        Args:
            captured: pictures on which neurons are scored, candidates among them.
            candidates: what is to be forgotten, and all else that is tried.
            splits: how often the candidates are halved anew.
        """
        options, seeds = CaptureOptions(seed=self.seed), range(self.seed, self.seed + splits)
        halved = [halves(candidates, seed=seed) for seed in seeds]
        inputs = {
            **self._facts(),
            "pictures": content_sha256(captured),
            "candidates": candidates.identity,
            "groups": candidates.group.tolist(),
            "views": options.views,
            "seeds": [self.seed, splits],
        }

        def make(_: Cell) -> xr.DataTree:
            metrics = [
                LeavingOut(create("metric", "unitmem"), scored_on(candidates, half == one).ids)
                for half in halved
                for one in (0, 1)
            ]
            found = localize(
                *(self.model, captured),
                metric=tuple(metrics),
                options=options,
                progress=self.progress,
            )
            return _trees({f"scores{place}": one for place, one in enumerate(found.values())})

        tree = self.cells.one(Cell("scores", "UnitMem without halves", inputs), make).children
        every = [restored(tree[f"scores{place}"].to_dataset()) for place in range(2 * splits)]
        return tuple(
            CrossFit((every[2 * place], every[2 * place + 1]), half, seed, candidates.identity)
            for place, (half, seed) in enumerate(zip(halved, seeds, strict=True))
        )

    def contrasted(
        self,
        scorer: ImageScorer,
        candidates: Candidates,
        reference: Images | None,
        split: int = 0,
    ) -> xr.Dataset | CrossFit:
        """Score neurons by contrast; where that depends on images, without each half of them.

        Args:
            scorer: scores the neurons.
            candidates: what is to be forgotten, and all else that is tried.
            reference: what it is contrasted with; None where the scorer needs none.
            split: which draw of the halves, from 0.
        """
        seed = self.seed + split
        others = candidates.images if reference is None else reference
        inputs = {
            **self._facts(),
            "scorer": described(scorer),
            "candidates": candidates.identity,
            "groups": candidates.group.tolist(),
            "pictures": content_sha256(candidates.images),
            "reference": content_sha256(others),
            "seed": seed,
        }

        def score(images: Images) -> xr.Dataset:
            return contrast(self.model, images, others, scorer=scorer)

        def make(_: Cell) -> xr.DataTree:
            if not scorer.needs_images:
                return _tree(score(candidates.images))
            fitted = cross_fit(candidates, score, seed=seed)
            return _trees({f"half{place}": one for place, one in enumerate(fitted.scores)})

        cell = Cell("contrast", scorer.key, inputs)
        found = self.cells.one(cell, make).children
        if not scorer.needs_images:
            return restored(found["one"].to_dataset())
        first, second = (restored(found[f"half{place}"].to_dataset()) for place in range(2))
        half = halves(candidates, seed=seed)
        return CrossFit((first, second), half, seed, candidates.identity)

    def features(self, measure: Quality) -> Callable[[Images], np.ndarray]:
        """Return what gives the features of real pictures, each list once for all workers."""
        views = self.model.adapter.variant.views

        def see(images: Images) -> np.ndarray:
            inputs = {
                "measure": plain(measure.provenance) | described(measure),
                "views": plain(views.provenance),
                "pictures": content_sha256(images),
            }

            def make(_: Cell) -> xr.DataTree:
                seen = features_of(measure, centred(images, views, self.batch_size))
                return _tree(xr.Dataset({"features": (("picture", "feature"), seen)}))

            found = self._one("features", "real pictures", inputs, make)["features"]
            return np.asarray(found.values)

        return see

    def sampler(self, measure: Quality, calibration: Images, generated: int) -> TunedSampling:
        """Return the sampling temperature with the least KID against some pictures."""
        inputs = {
            **self._facts(),
            "measure": plain(measure.provenance) | described(measure),
            "pictures": content_sha256(calibration),
            "generated": generated,
            "seed": self.seed,
        }

        def make(_: Cell) -> xr.DataTree:
            tuned = tune_sampling(
                *(self.model, measure, calibration),
                generated=generated,
                seed=self.seed,
                batch_size=self.batch_size,
                progress=self.progress,
            )
            return _tree(xr.Dataset(attrs={"tuned": dict(tuned.provenance)}))

        return TunedSampling.of(self._one("sampler", "temperature", inputs, make).attrs["tuned"])

    def _one(
        self,
        stage: str,
        name: str,
        inputs: Mapping[str, Any],
        make: Callable[[Cell], xr.DataTree],
    ) -> xr.Dataset:
        tree = self.cells.one(Cell(stage, name, inputs), make)
        return restored(tree.children["one"].to_dataset())

    def _facts(self) -> dict[str, Any]:
        """Return what is known of the model and where it computes."""
        names = ("model", "adapter_version", "dtype", "torch_threads", "autocast")
        known = {name: self.made_by[name] for name in names if name in self.made_by}
        hashes = {name: one for name, one in self.made_by.items() if name.endswith("_sha256")}
        device = str(self.made_by["device"]).partition(":")[0]
        if device != "cpu":
            known.pop("torch_threads")
        torch_version = self.made_by["versions"]["torch"]
        sizes = {"device": device, "torch": torch_version, "batch_size": self.batch_size}
        return {**known, **hashes, **sizes}


def without_threshold(attack: Attack, candidates: Candidates, targets: Any) -> Attack:
    """Return the attack on other candidates, which measures no losses and fixes nothing anew."""
    return replace(
        attack,
        candidates=candidates,
        targets=targets,
        recognition=None,
        losses=None,
        recalibration=None,
        unseen=None,
    )


def _tree(dataset: xr.Dataset) -> xr.DataTree:
    return _trees({"one": dataset})


def _trees(datasets: Mapping[str, xr.Dataset]) -> xr.DataTree:
    return xr.DataTree(
        children={name: xr.DataTree(storable(one)) for name, one in datasets.items()}
    )
