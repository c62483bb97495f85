"""The pictures of a plan, opened, by what they are for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from iarmem_plugin import plugins
from iarmem_plugin.data.images import Images
from iarmem_plugin.data.opening import check_conditions, open_images, same_pictures
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.counts import HELD_OUT
from iarmem_plugin.evaluation.references.file import ReferenceFeatures, holds_features
from iarmem_plugin.interfaces.organism import Organism
from iarmem_plugin.jobs.demo import pictures as of_organism
from iarmem_plugin.jobs.plan.parts.inputs import PicturesPart
from iarmem_plugin.jobs.protocol import check_calibration, check_unseen, halves
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from rich.progress import Progress

    from iarmem_plugin.jobs.plan.plan import Plan

OTHERS = "images"


@dataclass(frozen=True, slots=True, repr=False)
class Material:
    """The pictures of a comparison.

    Attributes:
        images: training pictures; they are ranked where no candidates are given, and images are
            generated like them.
        candidates: pictures to try, in groups, held-out ones that are reported included; None
            before they are ranked.
        reported: held-out pictures that are reported, to be added to what is ranked.
        unseen: pictures that fix thresholds; not reported.
        fitted: pictures that each arm's temperature is fitted on; not reported.
        contrasted: what candidates are contrasted with; by the name of a scorer, or ``""`` for all
            others.
        retained: pictures that edits by training are to keep.
        references: what generated images are compared with, by the names that labels give them.
        beside: other real pictures like a reference's, see `quality_protocol`.
        captured: pictures on which neurons are scored where a plan names no scores.
        seen: what a file of features, or of their statistics, says of real pictures.
    """

    images: Images | None = None
    candidates: Candidates | None = None
    reported: Images | None = None
    unseen: Candidates | None = None
    fitted: Images | None = None
    contrasted: Mapping[str, Images] = field(default_factory=dict)
    retained: Images | None = None
    references: Mapping[str, Images] = field(default_factory=dict)
    beside: Mapping[str, tuple[str, Images]] = field(default_factory=dict)
    captured: Images | None = None
    seen: ReferenceFeatures | None = None

    def __repr__(self) -> str:
        """Return numbers of pictures."""
        tried = "to be ranked" if self.candidates is None else repr(self.candidates)
        unseen = 0 if self.unseen is None else len(self.unseen)
        return f"Material({tried}, thresholds fixed on {unseen})"

    def contrasted_by(self, scorer: str) -> Images | None:
        """Return what a scorer contrasts candidates with; None where there is nothing."""
        return self.contrasted.get(scorer, self.contrasted.get(""))

    def with_ranked(self, ranked: Candidates) -> Material:
        """Return the same with what was ranked, and after it the held-out pictures."""
        if self.reported is None:
            return replace(self, candidates=ranked)
        return replace(self, candidates=_with(ranked, self.reported, HELD_OUT))


def open_material(plan: Plan, progress: Progress | None = None) -> Material:
    """Open the pictures that a plan names, and read all of them that are tried or held out.

    Args:
        plan: the plan.
        progress: where progress bars may be shown.

    Raises:
        InputError: pictures that cannot be used, too few held-out ones, or none to try.
    """
    if plan.pictures.organism:
        return _of_organism(plan)
    return _of_paths(plan, progress)


def _of_paths(plan: Plan, progress: Progress | None) -> Material:
    opened = _Opening(plan.model.name, plan.pictures, progress)
    part, attack = plan.pictures, plan.attack
    images, held_out = opened.of(part.images), opened.of(part.held_out)
    tried = opened.groups(part.candidates)
    if held_out is None:
        unseen, reported = None, None
    else:
        _check_enough(len(held_out), few=attack.few_held_out or attack.threshold is not None)
        known = [images, None if tried is None else tried.images]
        check_unseen(held_out, [one for one in known if one is not None])
        unseen, reported = halves(held_out)
    if tried is not None and reported is not None:
        tried = _with(tried, reported, HELD_OUT)
    contrasted = opened.of(part.contrast_with) or unseen
    seen = None
    if part.reference is not None and holds_features(part.reference):
        seen, real = ReferenceFeatures.load(part.reference), None
    else:
        real = opened.of(part.reference) or images
    references, beside = _references(plan, real, unseen, reported)
    return Material(
        images=images,
        candidates=tried,
        reported=reported,
        unseen=None if unseen is None else Candidates(unseen, np.full(len(unseen), HELD_OUT)),
        fitted=unseen,
        contrasted={} if contrasted is None else {"": contrasted},
        retained=opened.of(part.retain) or others(images, tried),
        references=references,
        beside=beside,
        seen=seen,
    )


def _check_enough(held_out: int, *, few: bool) -> None:
    """Refuse too few held-out pictures, in the words of a plan."""
    try:
        check_calibration(held_out, few=few)
    except InputError as error:
        said = str(error).replace("(--threshold)", "([attack] threshold)")
        said = said.replace("(--few-held-out)", "([attack] few-held-out = true)")
        raise InputError(f"[pictures] held-out: {said}") from error


def _references(
    plan: Plan, real: Images | None, unseen: Images | None, reported: Images | None
) -> tuple[dict[str, Images], dict[str, tuple[str, Images]]]:
    """Return what generated images are compared with: held-out ones first, if they suffice."""
    references = {} if real is None else {"given images": real}
    if plan.quality.images is None or unseen is None or reported is None:
        return references, {}
    from iarmem_plugin.plugins.options import Written

    named = Written.of(plan.quality.images, "quality").name
    if len(reported) < getattr(plugins.find("quality", named), "minimum", 2):
        return references, {}
    return {"held-out images": reported, **references}, {
        "held-out images": ("other held-out images", unseen)
    }


def _of_organism(plan: Plan) -> Material:
    organism, sizes = organism_of(plan.model.name), of_organism.Sizes()
    if plan.pictures.members is not None:
        sizes = replace(sizes, members=plan.pictures.members)
    tried = of_organism.candidates(organism, of_organism.reported(organism, sizes))
    members = np.setdiff1d(of_organism.having(organism, "member"), tried.images.ids)
    unseen = of_organism.unreported(organism, sizes.recalibrated)
    some = of_organism.unreported(organism, sizes.reference)
    real = of_organism.references(organism)
    apart = organism.pictures.subset(np.flatnonzero(organism.calibration))
    return Material(
        images=organism.pictures.subset(np.flatnonzero(organism.exposures > 0)),
        candidates=tried,
        unseen=Candidates(organism.pictures.subset(unseen), organism.group[unseen].astype(str)),
        fitted=organism.pictures.subset(of_organism.unreported(organism, sizes.fitted)),
        contrasted={
            "": organism.pictures.subset(some),
            "gradient-weight": organism.pictures.subset(
                of_organism.spread(members, sizes.reference)
            ),
        },
        retained=organism.pictures.subset(members),
        references=real,
        beside={next(iter(real)): ("calibration pictures", apart)},
        captured=of_organism.captured_pictures(organism, sizes.captured),
    )


def organism_of(model: str) -> Organism:
    """Return what is known of an organism.

    Raises:
        InputError: the model is none.
    """
    _, variant = plugins.find_variant(model)
    if variant.organism is None:
        raise InputError(f"{shown(model, 60)} is not an organism; give the paths of pictures")
    return variant.organism()


@dataclass(frozen=True, slots=True)
class _Opening:
    """How the pictures of one plan are opened."""

    model: str
    part: PicturesPart
    progress: Progress | None

    def of(self, path: Path | None) -> Images | None:
        """Open and read the pictures of a folder or list; None where none is named."""
        if path is None:
            return None
        conditions, classes = plugins.conditions(self.model), plugins.num_classes(self.model)
        found = open_images(
            path,
            root=self.part.root if path.suffix == ".txt" else None,
            num_classes=classes,
            classes=self.part.classes,
            labelled="label" in conditions,
        )
        check_conditions(found, conditions, classes)
        ranked = path == self.part.images and self.part.candidates is None
        if ranked and self.part.on_bad_image == "error":
            return found  # of many, ranking tells which cannot be read
        return found.verify(
            self.part.on_bad_image, workers=self.part.workers, progress=self.progress
        )

    def groups(self, named: Path | Mapping[str, Path] | None) -> Candidates | None:
        """Open candidates, of one list or of one for each group."""
        if named is None:
            return None
        paths = named if isinstance(named, Mapping) else {"candidate": named}
        found: Candidates | None = None
        for group, path in paths.items():
            some = self.of(path)
            assert some is not None
            if found is None:
                found = Candidates(some, np.full(len(some), group))
            else:
                _check_apart(found, some, group)
                found = _with(found, some, group)
        return found


def _check_apart(found: Candidates, more: Images, group: str) -> None:
    if shared := same_pictures(more, [found.images]):
        raise InputError(
            f"{len(shared)} of {len(more)} pictures of the group {shown(group, 60)!r} are also in "
            f"another group, such as {shown(shared[0])}; give each candidate once"
        )


def _with(candidates: Candidates, more: Images, group: str) -> Candidates:
    return candidates.joined(more, np.full(len(more), group))


def others(images: Images | None, tried: Candidates | None) -> Images | None:
    """Return the training pictures that are no candidates; None where there are none.

    Args:
        images: the training pictures.
        tried: the candidates; None before they are ranked.
    """
    if images is None or tried is None:
        return None
    known = set(same_pictures(images, [tried.images]))
    kept = [place for place, path in enumerate(images.paths) if path not in known]
    return images.subset(kept) if kept else None
