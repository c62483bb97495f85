"""``iarmem rank``: training images in, a ranking to choose candidates from out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iarmem_plugin.cli import console, preflight
from iarmem_plugin.cli import options as opt
from iarmem_plugin.cli.pictures import PictureChoice
from iarmem_plugin.errors import InputError
from iarmem_plugin.files import check_file, looks_like_url
from iarmem_plugin.table import TextTable
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iarmem_plugin.activations.distributed import Ranks
    from iarmem_plugin.evaluation.ranking.ranking import Ranking

SHOWN = 10  # of the best, in the table and in JSON


@dataclass(frozen=True, slots=True)
class _Job:
    """What is ranked by which model, and where that is written."""

    model: opt.ModelOptions
    pictures: PictureChoice
    sizes: Mapping[str, Any]
    out: Path
    cache: Path | None

    @property
    def kept(self) -> Path:
        """Folder for tokens and scores."""
        return self.out.with_name(f"{self.out.name}.cache") if self.cache is None else self.cache

    def check(self) -> None:
        """Refuse what can be told to be wrong before the model is loaded, but for the pictures."""
        from iarmem_plugin.models.hub import check_files

        self.pictures.check()
        check_files(self.model.name, self.model.files)
        check_file(self.out)
        sources = {"--images": self.pictures.source}
        preflight.check_apart(self.out, sources)
        if self.cache is not None:
            self._check_cache(self.cache, sources)
        preflight.check_device(self.model.device)

    def _check_cache(self, cache: Path, sources: preflight.Sources) -> None:
        from iarmem_plugin.stages import Stages

        if looks_like_url(cache):
            raise InputError(f"--cache {shown(cache)} looks like a URL; name a folder")
        Stages(cache, {}).check()
        preflight.check_apart(cache, sources, option="--cache")

    def run(self, ranks: Ranks) -> Ranking:
        """Rank, write the file, and delete what was kept for the run alone."""
        pictures = ranks.broadcast(lambda: self.pictures.open(self.model.name))

        from iarmem_plugin.cli.inputs import load_model
        from iarmem_plugin.evaluation.ranking.pieces import forget_pieces
        from iarmem_plugin.evaluation.ranking.run import rank

        model = load_model(self.model, device=ranks.device(self.model.device))
        preflight.check_fit(model, [pictures])
        with console.progress_bars(hidden=not ranks.first) as progress:
            shared: Any = {"ranks": ranks, "progress": progress}
            found = rank(model, pictures, cache=self.kept, **self.sizes, **shared)
        if ranks.first:
            found.save(self.out)
            if self.cache is None:
                forget_pieces(self.kept)
        return found


def rank(
    model: opt.Model,
    images: opt.ImageSource,
    out: opt.RankingOut,
    cache: opt.Cache = None,
    chunk: opt.Chunk = 256,
    weights: opt.Weights = None,
    tokenizer: opt.Tokenizer = None,
    file: opt.Files = None,
    device: opt.Device = "cpu",
    dtype: opt.Dtype = opt.Precision.float32,
    compile: opt.Compile = False,
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
    """Score training images by how well the model predicts their tokens; write the ranking.

    A run that was killed goes on when the same command is given again.
    """
    reading = opt.ReadingOptions(image_root, classes, on_bad_image, workers)
    subset = (images_per_class, images_fraction, subset_seed, subset_part)
    files = opt.read_files(weights, tokenizer, file or ())
    job = _Job(
        model=opt.ModelOptions(model, files, device, dtype, compile),
        pictures=PictureChoice(images, reading, verify_images, *subset),
        sizes={"chunk": chunk, "batch_size": batch_size, "workers": workers},
        out=out,
        cache=cache,
    )
    job.check()

    from iarmem_plugin.activations.distributed import join_processes

    with join_processes(device) as ranks:
        found = job.run(ranks)
        if ranks.first:
            console.show(_summary(found, out), _table(found), as_json=as_json)


def _summary(found: Ranking, out: Path) -> dict[str, Any]:
    best = [
        {
            "path": found.paths[place],
            "label": int(found.labels[place]),
            "hit_rate": float(found.hit_rate[place]),
            "log_probability": float(found.log_probability[place]),
        }
        for place in found.order[:SHOWN]
    ]
    return {"out": str(out), "images": len(found), "copies": int(found.copies.sum()), "best": best}


def _table(found: Ranking) -> TextTable:
    title = f"best predicted of {len(found):,} images"
    if copies := int(found.copies.sum()):
        title += f", {copies:,} of them copies of others"
    rows = [
        (
            shown(found.paths[place], 80),
            str(found.labels[place]),
            f"{found.hit_rate[place]:.4f}",
            f"{found.log_probability[place]:.3f}",
        )
        for place in found.order[:SHOWN]
    ]
    columns = ("image", "class", "hit rate", "mean log-likelihood")
    return TextTable(title, columns, rows, numbers=columns[1:])
