"""The plan of a comparison: what is compared on which model and pictures, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError, model_validator

from iarmem_plugin import plugins
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.counts import ORIGINAL, TWIN
from iarmem_plugin.jobs.plan.arms import OWN_SCORES, SPLIT_SCORES, expand
from iarmem_plugin.jobs.plan.mistakes import Source, explained, nearest, wrong
from iarmem_plugin.jobs.plan.parts import values as of
from iarmem_plugin.jobs.plan.parts.evidence import EvidencePart, ExpectPart
from iarmem_plugin.jobs.plan.parts.grids import ArmPart, DropPart, GridPart
from iarmem_plugin.jobs.plan.parts.inputs import ModelPart, PicturesPart
from iarmem_plugin.jobs.plan.parts.measures import AttackPart, QualityPart, RecoveryPart
from iarmem_plugin.jobs.plan.parts.table import Part
from iarmem_plugin.jobs.plan.planned import ClashError, PlannedArm
from iarmem_plugin.jobs.plan.writing import as_toml
from iarmem_plugin.text import shown


class Plan(Part):
    """What `compare` runs: a model, its pictures, and arms, single ones and grids of them.

    Read one with `read_plan`, or make one from a mapping of the same keys, `from_document`; it is
    as docs/plan.md says. A plan cannot be changed.

    Raises:
        ValueError: a part of it cannot be; `read_plan` and `from_document` say so in one sentence.
    """

    seed: of.Seed = 0
    """Seed of everything drawn at random; random sets have the seeds after it."""
    model: ModelPart
    """The model."""
    twin: ModelPart | None = None
    """A model trained alike that never saw the canaries, for an arm of its own."""
    pictures: PicturesPart = Field(default_factory=PicturesPart)
    """The pictures."""
    scores: dict[of.Words, of.Place] = Field(default_factory=dict)
    """Folders or files that `iarmem localize` wrote, by names of your choice; the first is what \
arms take that name none."""
    attack: AttackPart = Field(default_factory=AttackPart)
    """The extraction attack."""
    quality: QualityPart = Field(default_factory=QualityPart)
    """What an edit costs."""
    grid: tuple[GridPart, ...] = ()
    """Grids of arms."""
    arm: tuple[ArmPart, ...] = ()
    """Single arms."""
    drop: tuple[DropPart, ...] = ()
    """Rules by which arms are dropped; they are printed, and no control is dropped for its own \
outcome."""
    recovery: RecoveryPart = Field(default_factory=RecoveryPart)
    """How much work brings pictures back."""
    evidence: EvidencePart = Field(default_factory=EvidencePart)
    """What the statistics rest on."""
    expect: tuple[ExpectPart, ...] = ()
    """What arms are expected to do, declared before the run."""

    @classmethod
    def from_document(cls, document: Mapping[str, Any], *, source: Source | None = None) -> Plan:
        """Return the plan that a mapping describes, with the keys of a plan's file.

        Args:
            document: texts, numbers, truth values, lists and mappings, as TOML or JSON has them.
            source: where it comes from; by default Python, and paths start at the current folder.

        Raises:
            InputError: the first thing that is wrong with it, in one sentence.
        """
        known = Source() if source is None else source
        context = {"folder": known.folder, "look": known.look}
        try:
            return cls.model_validate(dict(document), context=context)
        except ValidationError as error:
            raise InputError(explained(error, document, known)) from error

    def to_document(self) -> dict[str, Any]:
        """Return every key with its value, as JSON has them: paths are absolute, None is left out.

        `from_document` makes an equal plan of it.
        """
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_toml(self) -> str:
        """Return the plan as the text of a file, each key with what it says as a comment."""
        return as_toml(self)

    def on(self, *, device: str | None = None, batch_size: int | None = None) -> Plan:
        """Return the plan with another device, of the twin, too, or another size of batches."""
        changed: dict[str, Any] = {}
        if device is not None:
            own = {"device": device}
            changed["model"] = self.model.model_copy(update=own)
            changed["twin"] = None if self.twin is None else self.twin.model_copy(update=own)
        if batch_size is not None:
            changed["attack"] = self.attack.model_copy(update={"batch_size": batch_size})
        return self.model_copy(update=changed)

    def arms(self) -> list[PlannedArm]:
        """Return all arms but the unmodified model and the twin: single ones, grids, controls."""
        splits = self.evidence.splits
        return expand(self.arm, self.grid, self.scores_names, self.seed, splits)

    @property
    def scores_names(self) -> tuple[str, ...]:
        """Names of the scores that arms are given, the default first."""
        own = (OWN_SCORES, SPLIT_SCORES) if self.pictures.organism else ()
        return tuple(self.scores) or own

    @model_validator(mode="after")
    def _check_whole(self) -> Plan:
        self._check_pictures()
        self._check_quality()
        self._check_scores()
        self._check_drops()
        self._check_edits()
        if not (self.grid or self.arm or self.twin or self.recovery.triggers):
            raise wrong("the plan has nothing to compare; add a [[grid]] or an [[arm]]")
        try:
            arms = self.arms()
        except ClashError as error:
            raise wrong(str(error), *error.at) from error
        self._check_expected(arms)
        self._check_recovery(arms)
        return self

    def _check_recovery(self, arms: Sequence[PlannedArm]) -> None:
        """Refuse triggers without pictures never seen, depth without a twin, and unknown arms."""
        known = [ORIGINAL, *(one.name for one in arms), *((TWIN,) if self.twin else ())]
        for place, name in enumerate(self.recovery.arms):
            if name not in known:
                raise wrong(
                    f"[recovery] arms has {shown(name, 120)!r}; {nearest(name, known)}",
                    *("recovery", "arms", place),
                )
        if self.recovery.depth and self.twin is None:
            raise wrong(
                "[recovery] depth is true, which is told by a model that never saw the pictures; "
                "give one trained alike in [twin], or leave depth out",
                *("recovery", "depth"),
            )
        if self.recovery.triggers and not self.pictures.organism and not self.pictures.held_out:
            raise wrong(
                "[recovery] has triggers, whose thresholds are fixed on pictures never seen; give "
                "held-out in [pictures]",
                *("recovery", "triggers"),
            )

    def _check_expected(self, arms: Sequence[PlannedArm]) -> None:
        """Refuse expectations of arms that there are not, or too many in one family."""
        known = list(dict.fromkeys(one.whole_name for one in arms))
        matched = any((one.selector or "").partition(":")[0] == of.MATCHED for one in arms)
        others = [*known, *((TWIN,) if self.twin else ()), of.RANDOM, of.MATCHED]
        families: dict[str, int] = {}
        for place, one in enumerate(self.expect):
            for key, names in (("arm", known), ("against", others)):
                if (named := getattr(one, key)) not in names:
                    raise wrong(
                        f"[[expect]] {key} is {shown(named, 120)!r}; {nearest(named, names)}",
                        *("expect", place, key),
                    )
            if one.against == one.arm:
                raise wrong(
                    "[[expect]] against is the arm itself; expected random, random-matched or "
                    "another arm",
                    *("expect", place, "against"),
                )
            if one.against == of.MATCHED and not matched:
                raise wrong(
                    "[[expect]] against is 'random-matched', and the plan has no such sets; give "
                    "a [[grid]] matched-sets",
                    *("expect", place, "against"),
                )
            if one.family is None:
                continue
            families[one.family] = families.get(one.family, 0) + 1
            if families[one.family] > (most := self.evidence.most_tests):
                raise wrong(
                    f"[[expect]] the family {shown(one.family, 60)!r} has more than {most} tests; "
                    f"with {self.evidence.sets} sets and alpha {self.evidence.alpha:g} Holm's "
                    "first step could not be passed by more (m tests need m / alpha - 1 sets)",
                    *("expect", place, "family"),
                )

    def _check_pictures(self) -> None:
        pictures = self.pictures
        if self.attack.ranking is not None and (pictures.organism or pictures.candidates):
            other = "organism = true" if pictures.organism else "candidates"
            raise wrong(
                f"[attack] has a ranking and [pictures] {other}; give one of them: where "
                "candidates come from",
                *("attack", "ranking"),
            )
        named = [key for key, path in pictures.sources.items() if path is not None]
        named += ["classes"] if pictures.classes is not None else []
        if pictures.members is not None and not pictures.organism:
            raise wrong(
                "[pictures] members is for an organism, whose groups are known; give candidates",
                *("pictures", "members"),
            )
        if not pictures.organism:
            if pictures.images is None and pictures.candidates is None:
                raise wrong(
                    "[pictures] names neither 'images' nor 'candidates'; give a folder, a list or "
                    "an .npz file, or organism = true",
                    *("pictures", "images"),
                )
            return
        if named:
            key = named[0].partition(" ")[0]
            raise wrong(
                f"[pictures] has organism = true and {key!r}; an organism has its own pictures, so "
                f"leave {key!r} out",
                *("pictures", key),
            )
        found = plugins.variants().get(self.model.name)
        if found is None or found[1].organism is None or found[1].twin_of:
            known = {name: one for name, (_, one) in plugins.variants().items() if one.organism}
            own = of.listed(name for name, one in known.items() if not one.twin_of)
            raise wrong(
                f"[pictures] organism is true and [model] name is {shown(self.model.name, 60)!r}; "
                f"expected one of {own}, or the paths of pictures",
                *("pictures", "organism"),
            )

    def _check_quality(self) -> None:
        """Refuse a measure that cannot see, and a temperature that nothing could find."""
        if self.pictures.organism:
            return
        images = self.quality.images
        if images == of.OWN_CLASSIFIER:
            raise wrong(
                "[quality] images is 'fid', which needs an extractor: fid:extractor=FILE; without "
                "one it sees by an organism's own classifier, where organism = true",
                *("quality", "images"),
            )
        if self.quality.temperature != of.TUNED:
            return
        if images is None:
            raise wrong(
                "[quality] temperature is 'tuned', which is found by a measure of images, and the "
                "plan names none; give a number, or images in [quality]",
                *("quality", "temperature"),
            )
        if self.pictures.held_out is None:
            raise wrong(
                "[quality] temperature is 'tuned', which is found on images that the model was "
                "not trained on; give held-out in [pictures]",
                *("quality", "temperature"),
            )

    def _check_scores(self) -> None:
        if SPLIT_SCORES in self.scores:
            raise wrong(
                f"[scores] {SPLIT_SCORES!r} is the name of scores that an organism's plan has by "
                "itself; give another name",
                *("scores", SPLIT_SCORES),
            )
        for place, grid in enumerate(self.grid):
            self._check_named(grid.scores, "grid", place)
            self._check_scored(grid.selectors, "grid", place, matched=grid.matched_sets > 0)
        for place, arm in enumerate(self.arm):
            self._check_named(arm.scores, "arm", place)
            self._check_scored((arm.selector,), "arm", place)

    def _check_named(self, scores: str | None, table: str, place: int) -> None:
        names = self.scores_names
        if scores is not None and scores not in names:
            known = nearest(scores, names) if names else "[scores] names none"
            raise wrong(
                f"[[{table}]] scores is {shown(scores, 60)!r}; {known}", *(table, place, "scores")
            )

    def _check_scored(
        self, selectors: Sequence[str | None], table: str, place: int, *, matched: bool = False
    ) -> None:
        """Refuse a selector that needs scores where there are none."""
        if self.scores_names:
            return
        plain = [one for one in selectors if one is not None and of.kind_of(one) == "selector"]
        if plain or matched:
            what = f"the selector {shown(plain[0], 60)!r}" if plain else "matched-sets"
            raise wrong(
                f"[[{table}]] has {what}, which needs scores; name a folder that `iarmem localize` "
                "wrote in [scores]",
                *(table, place),
            )

    def _check_drops(self) -> None:
        pictures = self.pictures
        losses = self.quality.losses and (pictures.organism or pictures.held_out is not None)
        for place, rule in enumerate(self.drop):
            if rule.before == "images" and self.quality.images is None:
                raise wrong(
                    "[[drop]] before is 'images', and none are generated; give images in [quality]",
                    *("drop", place, "before"),
                )
            if rule.outcome == "held-out change" and not losses:
                raise wrong(
                    "[[drop]] outcome is 'held-out change', which is not measured; give held-out "
                    "in [pictures] and losses = true in [quality]",
                    *("drop", place, "outcome"),
                )

    def _check_edits(self) -> None:
        """Refuse edits of the whole model that lack what they learn from."""
        pictures = self.pictures
        missing = {
            "retained": ("images to keep", "retain", pictures.retain),
            "calibration": ("images that were not shown", "held-out", pictures.held_out),
        }
        for place, arm in enumerate(self.arm):
            for part in () if arm.edit is None or pictures.organism else of.needs_of(arm.edit):
                what, key, path = missing.get(part, ("", "", pictures))
                if path is None:
                    raise wrong(
                        f"[[arm]] edit is {shown(arm.edit, 60)!r}, which needs {what}; give {key} "
                        "in [pictures]",
                        *("arm", place, "edit"),
                    )
