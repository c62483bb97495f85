"""What ``iarmem mitigate`` measures beside extraction: what an edit costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from iarmem_plugin.errors import InputError
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from rich.progress import Progress

    from iarmem_plugin.data.images import Images
    from iarmem_plugin.evaluation.references.file import ReferenceFeatures
    from iarmem_plugin.interfaces import LossQuality, Quality, TunedSampling
    from iarmem_plugin.jobs.quality import QualityProtocol
    from iarmem_plugin.models.tracing import ImageARModel

HELD_OUT_LOSS = "held-out-loss"
TUNED = "tuned"


class Measures(NamedTuple):
    """What was chosen: of generated images, and of predicted ones."""

    images: Quality | None = None
    losses: LossQuality | None = None


@dataclass(frozen=True, slots=True)
class QualityChoice:
    """How quality is measured, if it is; the held-out loss wherever images are held out."""

    named: tuple[str, ...]
    reference: Path | None
    generated: int
    seed: int
    seeds: int = 1
    temperature: str | None = None

    @property
    def names_losses(self) -> bool:
        """Whether the user asked for a measure of predictions."""
        return any(map(self._of_losses, self.named))

    def check(self, *, held_out: bool) -> dict[str, Path]:
        """Refuse measures that cannot be; return the files that are named."""
        from iarmem_plugin.plugins.create import check

        kinds = [self._of_losses(text) for text in self.named]
        if self.reference is not None and not kinds.count(False):
            raise InputError(
                "--reference is what image quality is compared with; give --quality with a measure "
                "of images, too"
            )
        if (self.temperature is not None or self.seeds > 1) and not kinds.count(False):
            raise InputError(
                "--temperature and --seeds are of generated images; give --quality with a measure "
                "of images, too"
            )
        self._check_temperature(held_out=held_out)
        if kinds.count(True) > 1 or kinds.count(False) > 1:
            raise InputError(
                f"--quality is given as {', '.join(self.named)}; expected at most one measure of "
                "images, such as fid, and one of predictions, such as held-out-loss"
            )
        if any(kinds) and not held_out:
            name = self.named[kinds.index(True)]
            raise InputError(
                f"--quality {name} predicts images that the model was not trained on; give them "
                "with --held-out"
            )
        return {name: file for text in self.named for name, file in check("quality", text).items()}

    @property
    def pictures(self) -> Path | None:
        """The reference, where it is pictures."""
        from iarmem_plugin.evaluation.references.file import holds_features

        return None if holds_features(self.reference) else self.reference

    def features(self) -> ReferenceFeatures | None:
        """Read the reference, where it is a file of features or of their statistics."""
        from iarmem_plugin.evaluation.references.file import ReferenceFeatures, holds_features

        if self.reference is None or not holds_features(self.reference):
            return None
        return ReferenceFeatures.load(self.reference)

    def check_enough(
        self, measure: Quality | None, real: Images | None, held_out: Images | None
    ) -> None:
        """Refuse fewer images than are needed on either side."""
        from iarmem_plugin.jobs.measuring import check_enough

        if measure is not None:
            sizes = {"generated": self.generated}
            if real is not None:
                sizes["given images"] = len(real)
            if self.temperature == TUNED and held_out is not None:
                sizes["half of --held-out"] = -(-len(held_out) // 2)
            check_enough(measure.name, measure.minimum, sizes)

    def protocol(
        self,
        model: ImageARModel,
        measure: Quality | None,
        real: Images | None,
        held_out: Images | None,
        *,
        batch_size: int,
        progress: Progress | None = None,
        seen: ReferenceFeatures | None = None,
        like: Images | None = None,
    ) -> QualityProtocol | None:
        """Say how images are generated and compared: with held-out ones first, if they suffice.

        Args:
            model: the model.
            measure: the measure; None where images are not measured.
            real: pictures to compare with; None where a file takes their place.
            held_out: pictures the model never saw.
            batch_size: pictures at a time.
            progress: where progress bars may be shown.
            seen: what a file says of real pictures.
            like: pictures whose class frequencies are followed where no others are compared with.
        """
        from iarmem_plugin.jobs.measuring import tune_sampling
        from iarmem_plugin.jobs.protocol import halves
        from iarmem_plugin.jobs.quality import quality_protocol

        if measure is None:
            return None
        calibration, reported = (None, None) if held_out is None else halves(held_out)
        references, beside = {} if real is None else {"given images": real}, {}
        if calibration is not None and reported is not None and len(reported) >= measure.minimum:
            references = {"held-out images": reported, **references}
            beside = {"held-out images": ("other held-out images", calibration)}
        temperature: float | TunedSampling | None = self._temperature
        if self.temperature == TUNED and calibration is not None:
            temperature = tune_sampling(
                *(model, measure, calibration),
                generated=self.generated,
                seed=self.seed,
                batch_size=batch_size,
                progress=progress,
            )
        return quality_protocol(
            *(model, measure, references),
            generated=self.generated,
            seed=self.seed,
            seeds=self.seeds,
            temperature=temperature,
            beside=beside,
            files=() if seen is None else (seen,),
            like=like,
            batch_size=batch_size,
        )

    def measures(self, device: str, *, held_out: bool) -> Measures:
        """Load what sees the images and the predictions."""
        from iarmem_plugin.interfaces import LossQuality
        from iarmem_plugin.plugins.create import create

        found = Measures()
        default = (HELD_OUT_LOSS,) if held_out and not self.names_losses else ()
        for text in (*self.named, *default):
            made = create("quality", text, {"device": device})
            if isinstance(made, LossQuality):
                found = found._replace(losses=made)
            else:
                found = found._replace(images=made)
        return found

    def _check_temperature(self, *, held_out: bool) -> None:
        if self.temperature == TUNED and not held_out:
            raise InputError(
                f"--temperature {TUNED} is found on images that the model was not trained on; give "
                "them with --held-out"
            )
        if self.temperature not in (None, TUNED) and not 0 < (self._temperature or 0) < math.inf:
            raise InputError(
                f"--temperature {shown(self.temperature, 60)!r} was given; expected a number above "
                f"0, or {TUNED}"
            )

    @property
    def _temperature(self) -> float | None:
        """The number that was given, if it is one."""
        try:
            return None if self.temperature is None else float(self.temperature)
        except ValueError:
            return None

    def _of_losses(self, text: str) -> bool:
        from iarmem_plugin.interfaces import LossQuality
        from iarmem_plugin.plugins.options import Written
        from iarmem_plugin.plugins.registry import find

        return issubclass(find("quality", Written.of(text, "quality").name), LossQuality)
