"""What ``iarmem mitigate`` measures beside extraction: what an edit costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from iarmem_plugin.errors import InputError

if TYPE_CHECKING:
    from iarmem_plugin.data.images import Images
    from iarmem_plugin.interfaces import LossQuality, Quality

HELD_OUT_LOSS = "held-out-loss"


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

    def check_enough(self, measure: Quality | None, real: Images) -> None:
        """Refuse fewer images than are needed on either side."""
        from iarmem_plugin.jobs.arms import check_enough

        if measure is not None:
            sizes = {"generated": self.generated, "given images": len(real)}
            check_enough(measure.name, measure.minimum, sizes)

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

    def _of_losses(self, text: str) -> bool:
        from iarmem_plugin.interfaces import LossQuality
        from iarmem_plugin.plugins.options import Written
        from iarmem_plugin.plugins.registry import find

        return issubclass(find("quality", Written.of(text, "quality").name), LossQuality)
