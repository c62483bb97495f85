"""What ``iarmem mitigate`` edits: neurons that a selector picks, or a contrast of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from iarmem_plugin.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    import xarray as xr

    from iarmem_plugin.data.images import Images
    from iarmem_plugin.evaluation.candidates import Candidates
    from iarmem_plugin.interfaces import ImageScorer, Selector
    from iarmem_plugin.jobs.arms import Arm
    from iarmem_plugin.models.tracing import ImageARModel
    from iarmem_plugin.plugins import Kind

SELECTING: tuple[Kind, Kind] = ("scorer", "selector")


@dataclass(frozen=True, slots=True)
class EditChoice:
    """Which neurons are edited and how, and how many random sets stand beside them."""

    selector: str
    intervention: str
    fraction: float
    random_sets: int
    seed: int

    def arms(self) -> list[Arm]:
        """Make the arm that the user named, and random sets with the seeds after its own."""
        from iarmem_plugin.jobs.arms import Arm
        from iarmem_plugin.jobs.protocol import with_random_sets
        from iarmem_plugin.neurons.selectors import Highest
        from iarmem_plugin.plugins.create import create

        intervention, scorer = create("intervention", self.intervention), self.scorer()
        selector = self._selector() if scorer is None else Highest()
        name = selector.key if scorer is None else scorer.key
        named = Arm(name, selector, intervention, self.fraction, seed=self.seed)
        return with_random_sets([named], self.random_sets, first_seed=self.seed + 1)

    def _selector(self) -> Selector:
        from iarmem_plugin import plugins
        from iarmem_plugin.plugins.create import create

        try:
            return create("selector", self.selector)
        except UnknownNameError as error:
            scorers = ", ".join(one.name for one in plugins.provided("scorer"))
            raise UnknownNameError(f"{error}; by contrast: {scorers}") from None

    def scorer(self) -> ImageScorer | None:
        """Make what scores neurons anew, where the selector is a preset of that and the highest."""
        from iarmem_plugin import plugins
        from iarmem_plugin.plugins.create import create
        from iarmem_plugin.plugins.options import Written

        name = Written.of(self.selector, "selector").name
        presets, selectors = ({one.name for one in plugins.provided(kind)} for kind in SELECTING)
        if name in presets and name not in selectors:
            return create("scorer", self.selector)
        return None

    def check(self, *, contrasted: bool, named: bool) -> None:
        """Refuse a contrast without images to contrast with, and such images without one.

        Args:
            contrasted: whether there are such images.
            named: whether they are there for that alone.
        """
        scorer = self.scorer()
        if named and (scorer is None or not scorer.needs_images):
            raise InputError(
                f"--contrast-with is for selectors that contrast, and {self.selector} does not; "
                "leave it out, or choose one such as gradient-weight"
            )
        if scorer is not None and scorer.needs_images and not contrasted:
            raise InputError(
                f"--selector {scorer.name} contrasts the candidates with images that the model is "
                "to predict as before; give them with --contrast-with, or --held-out"
            )

    def scored(
        self,
        arms: Sequence[Arm],
        model: ImageARModel,
        candidates: Candidates,
        reference: Images | None,
    ) -> list[Arm]:
        """Give the first arm scores of its own, where its neurons are chosen by a contrast."""
        from iarmem_plugin.jobs.contrast import contrast, cross_fit

        if (scorer := self.scorer()) is None:
            return list(arms)
        others = candidates.images if reference is None else reference

        def score(images: Images) -> xr.Dataset:
            return contrast(model, images, others, scorer=scorer)

        crossed = scorer.needs_images
        own = cross_fit(candidates, score, seed=self.seed) if crossed else score(candidates.images)
        return [replace(arms[0], scores=own), *arms[1:]]
