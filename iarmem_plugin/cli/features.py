"""``iarmem features``: real images in, what a quality measure sees of them out, as a reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iarmem_plugin.cli import console, preflight
from iarmem_plugin.cli import options as opt
from iarmem_plugin.cli.pictures import PictureChoice
from iarmem_plugin.errors import InputError
from iarmem_plugin.files import check_file
from iarmem_plugin.table import TextTable

if TYPE_CHECKING:
    from iarmem_plugin.evaluation.references.file import ReferenceFeatures

Out = Annotated[Path, typer.Option(help="File to write: .npz, to be given as --reference.")]
Measure = Annotated[
    str, typer.Option(help="What sees the images, such as fid:extractor=FILE, with its options.")
]


@dataclass(frozen=True, slots=True)
class _Job:
    """What is seen by which measure, and where that is written."""

    model: str
    pictures: PictureChoice
    quality: str
    out: Path
    device: str
    batch_size: int

    def check(self) -> None:
        """Refuse what can be told to be wrong before the measure is loaded."""
        from iarmem_plugin.plugins.create import check

        preflight.check_alone("features")
        self.pictures.check()
        check_file(self.out)
        if self.out.suffix.lower() != ".npz":
            raise InputError(f"--out {self.out} is not an .npz file; name one")
        preflight.check_apart(self.out, {"--images": self.pictures.source})
        files = check("quality", self.quality)
        preflight.check_sources({f"--quality {name}": file for name, file in files.items()})
        preflight.check_device(self.device)

    def run(self) -> ReferenceFeatures:
        """See all images, and write the file; return what it holds."""
        from iarmem_plugin import plugins
        from iarmem_plugin.evaluation.references.file import ReferenceFeatures
        from iarmem_plugin.interfaces import Quality
        from iarmem_plugin.jobs.measuring import see_images
        from iarmem_plugin.plugins.create import create

        views = plugins.find_variant(self.model)[1].views
        pictures = self.pictures.open(self.model)
        measure: Any = create("quality", self.quality, {"device": self.device})
        if not isinstance(measure, Quality):
            raise InputError(
                f"--quality {measure.name} sees no images; give a measure of images, such as fid"
            )
        with console.progress_bars() as progress:
            shared: Any = {"batch_size": self.batch_size, "progress": progress}
            see_images(measure, pictures, views, **shared).save(self.out)
        return ReferenceFeatures.load(self.out)


def features(
    model: opt.Model,
    images: opt.ImageSource,
    quality: Measure,
    out: Out,
    device: opt.Device = "cpu",
    batch_size: opt.BatchSize = 32,
    classes: opt.Classes = None,
    image_root: opt.ImageRoot = None,
    images_per_class: opt.ImagesPerClass = None,
    images_fraction: opt.ImagesFraction = None,
    subset_seed: opt.SubsetSeed = 0,
    subset_part: opt.SubsetPart = 0,
    on_bad_image: opt.BadImage = opt.OnBadImage.error,
    verify_images: opt.VerifyImages = False,
    workers: opt.Workers = 0,
    as_json: opt.AsJson = False,
) -> None:
    """Compute the features of real images once, for --reference of any number of runs.

    The images are cut as for the model, whose files are not needed.
    """
    reading = opt.ReadingOptions(image_root, classes, on_bad_image, workers)
    subset = (images_per_class, images_fraction, subset_seed, subset_part)
    chosen = PictureChoice(images, reading, verify_images, *subset)
    job = _Job(model, chosen, quality, out, device, batch_size)
    job.check()
    found = job.run()
    rows = [(key, str(value)) for key, value in found.provenance.items() if key != "made_by"]
    rows.append(("numbers an image", str(len(found.mean))))
    table = TextTable("features of real images", ("", out.name), rows)
    console.show({"out": str(out), **found.provenance}, table, as_json=as_json)
