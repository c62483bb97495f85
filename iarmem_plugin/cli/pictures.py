"""The pictures that options name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from iarmem_plugin.cli import options as opt
from iarmem_plugin.cli import preflight
from iarmem_plugin.errors import InputError

if TYPE_CHECKING:
    from iarmem_plugin.data.images import Images
    from iarmem_plugin.evaluation.ranking.ranking import Ranking
    from iarmem_plugin.evaluation.references.file import ReferenceFeatures


@dataclass(frozen=True, slots=True)
class PictureChoice:
    """Which pictures are used, of those that are there.

    Attributes:
        source: folder or file that holds or names them.
        reading: how they are read.
        verify: whether all are read before the model is loaded.
        per_class: pictures drawn of each class; None for all.
        fraction: share of all drawn, equally many of each class; None for all.
        seed: seed of the draw.
        part: which of the subsets of this size.
    """

    source: Path
    reading: opt.ReadingOptions
    verify: bool
    per_class: int | None
    fraction: float | None
    seed: int
    part: int

    def check(self) -> None:
        """Refuse what cannot be read, and a part of no subset."""
        if self.part and self.per_class is None and self.fraction is None:
            raise InputError(
                f"--subset-part {self.part} is a part of a subset; give --images-per-class or "
                "--images-fraction, too"
            )
        preflight.check_numbers({"--subset-seed": self.seed, "--workers": self.reading.workers})
        preflight.check_pictures({"--images": self.source, "--image-root": self.reading.root})
        preflight.check_sources({"--classes": self.reading.classes})

    def open(self, model: str) -> Images:
        """List them, and look into them as far as the user wants."""
        from iarmem_plugin.cli.inputs import open_pictures, read_whole

        pictures = open_pictures(self.source, model, self.reading)
        if self.per_class is not None or self.fraction is not None:
            pictures = pictures.balanced(
                self.per_class, fraction=self.fraction, seed=self.seed, part=self.part
            )
        if self.verify or self.reading.on_bad == opt.OnBadImage.skip:
            return read_whole(pictures, self.reading)
        return pictures.check_headers()


class Opened(NamedTuple):
    """The pictures that options name."""

    images: Images
    ranking: Ranking | None
    candidates: Images | None
    held_out: Images | None
    reference: Images | None
    contrast: Images | None
    seen: ReferenceFeatures | None = None

    @property
    def real(self) -> Images | None:
        """What generated images are compared with, held-out ones and files aside."""
        if self.seen is not None:
            return None
        return self.images if self.reference is None else self.reference

    @property
    def contrasted(self) -> Images | None:
        """What candidates are contrasted with: images that are not reported."""
        from iarmem_plugin.jobs.protocol import calibration_half

        if self.contrast is None and self.held_out is not None:
            return calibration_half(self.held_out)
        return self.contrast

    @property
    def listed(self) -> Sequence[Images | None]:
        """All lists of pictures."""
        return (self.images, *self[2:6])

    def read(self, reading: opt.ReadingOptions) -> Opened:
        """Read every picture, and leave out those that do not open if that is wanted."""
        from iarmem_plugin.cli.inputs import read_whole

        candidates, held_out, reference, contrast = (
            None if one is None else read_whole(one, reading) for one in self[2:6]
        )
        images = read_whole(self.images, reading)
        others = (candidates, held_out, reference, contrast)
        return Opened(images, self.ranking, *others, self.seen)
