"""``iarmem audit`` and ``iarmem inspect``: which of one's own pictures a model memorized."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iarmem_plugin.cli import console, preflight
from iarmem_plugin.cli import options as opt
from iarmem_plugin.errors import InputError
from iarmem_plugin.files import alone
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from iarmem_plugin.data.images import Images
    from iarmem_plugin.interfaces import AnyTrigger
    from iarmem_plugin.report.auditing.audit import Audit

Unseen = Annotated[
    Path,
    typer.Option(
        "--held-out",
        help="Pictures of the same kind that the model never saw, 40 or more: every other one "
        "fixes the thresholds, on the rest false alarms are counted.",
    ),
]
Triggers = Annotated[
    list[str] | None,
    typer.Option(
        "--trigger",
        metavar="NAME[:KEY=VALUE,...]",
        help="A way to bring pictures back, as `iarmem plugins` lists them; may be repeated, the "
        "cheapest first.",
        show_default="prefix, and learned-embedding where the model has classes",
    ),
]
Rate = Annotated[
    float,
    typer.Option(help="Share of the never-seen pictures that a threshold lets through, in [0, 1)."),
]
Neurons = Annotated[
    bool, typer.Option("--neurons/--no-neurons", help="Seek the neurons that peak on a picture.")
]


@dataclass(frozen=True, slots=True)
class _Job:
    """What is audited by which model, and how."""

    model: opt.ModelOptions
    reading: opt.ReadingOptions
    held_out: Path
    triggers: tuple[str, ...]
    rate: float
    neurons: bool
    seed: int
    batch_size: int

    def check(self, sources: preflight.Sources) -> None:
        """Refuse what can be told to be wrong without the model and the pictures."""
        from iarmem_plugin.models.hub import check_files

        preflight.check_numbers({"--seed": self.seed, "--workers": self.reading.workers})
        named = {**sources, "--held-out": self.held_out, "--image-root": self.reading.root}
        preflight.check_pictures(named)
        preflight.check_sources({"--classes": self.reading.classes})
        check_files(self.model.name, self.model.files)
        preflight.check_device(self.model.device)

    def open(self, source: Path) -> Images:
        """List the pictures that a path names, and look into them."""
        from iarmem_plugin.cli.inputs import open_pictures, read_whole

        found = open_pictures(source, self.model.name, self.reading)
        if self.reading.on_bad == opt.OnBadImage.skip:
            return read_whole(found, self.reading)
        return found.check_headers()

    def run(self, images: Images) -> Audit:
        """Load the model, once nothing is left that could be refused without it, and audit."""
        from iarmem_plugin.cli.inputs import load_model
        from iarmem_plugin.jobs.auditing.job import audit, check_audit

        held_out, triggers = self.open(self.held_out), self._triggers()
        check_audit(images, held_out, triggers, self.rate)
        model = load_model(self.model)
        preflight.check_fit(model, [images, held_out])
        with console.progress_bars() as progress:
            return audit(
                model,
                images,
                held_out,
                triggers=triggers,
                rate=self.rate,
                neurons=self.neurons,
                seed=self.seed,
                batch_size=self.batch_size,
                progress=progress,
            )

    def _triggers(self) -> list[AnyTrigger] | None:
        from iarmem_plugin.plugins.create import create

        return [create("trigger", one) for one in self.triggers] or None


def audit(
    model: opt.Model,
    images: opt.ImageSource,
    held_out: Unseen,
    out: opt.Out,
    trigger: Triggers = None,
    rate: Rate = 0.01,
    neurons: Neurons = True,
    seed: opt.Seed = 0,
    weights: opt.Weights = None,
    tokenizer: opt.Tokenizer = None,
    file: opt.Files = None,
    device: opt.Device = "cpu",
    dtype: opt.Dtype = opt.Precision.float32,
    compile: opt.Compile = False,
    batch_size: opt.BatchSize = 32,
    classes: opt.Classes = None,
    image_root: opt.ImageRoot = None,
    on_bad_image: opt.BadImage = opt.OnBadImage.error,
    workers: opt.Workers = 0,
    as_json: opt.AsJson = False,
) -> None:
    """Say which of your pictures a model memorized: a verdict each, beside false alarms.

    Extracted and recognisable pictures were brought back; member-like is a statistical hint; and
    nothing found is no proof of absence.
    """
    files = opt.read_files(weights, tokenizer, file or ())
    job = _Job(
        model=opt.ModelOptions(model, files, device, dtype, compile),
        reading=opt.ReadingOptions(image_root, classes, on_bad_image, workers),
        held_out=held_out,
        triggers=tuple(trigger or ()),
        rate=rate,
        neurons=neurons,
        seed=seed,
        batch_size=batch_size,
    )
    from iarmem_plugin.report.auditing.showing import check_audit_folder

    preflight.check_alone("audit")
    job.check({"--images": images})
    check_audit_folder(out)
    preflight.check_apart(out, {"--images": images, "--held-out": held_out})
    pictures = job.open(images)
    with alone(out):
        found = job.run(pictures)
        found.save(out)
    console.show(found.to_dict(), found.table(), as_json=as_json)
    console.say(f"Audit: {out / 'audit.html'}")


def inspect(
    model: opt.Model,
    image: Annotated[Path, typer.Option("--image", help="File of the picture.")],
    held_out: Unseen,
    label: Annotated[
        int | None,
        typer.Option(min=0, help="Class of the picture.", show_default="the name of its folder"),
    ] = None,
    trigger: Triggers = None,
    rate: Rate = 0.01,
    neurons: Neurons = True,
    seed: opt.Seed = 0,
    weights: opt.Weights = None,
    tokenizer: opt.Tokenizer = None,
    file: opt.Files = None,
    device: opt.Device = "cpu",
    dtype: opt.Dtype = opt.Precision.float32,
    compile: opt.Compile = False,
    batch_size: opt.BatchSize = 32,
    classes: opt.Classes = None,
    as_json: opt.AsJson = False,
) -> None:
    """Say of one picture whether a model memorized it; `iarmem audit` does so of many."""
    files = opt.read_files(weights, tokenizer, file or ())
    job = _Job(
        model=opt.ModelOptions(model, files, device, dtype, compile),
        reading=opt.ReadingOptions(None, classes, opt.OnBadImage.error, 0),
        held_out=held_out,
        triggers=tuple(trigger or ()),
        rate=rate,
        neurons=neurons,
        seed=seed,
        batch_size=batch_size,
    )
    from iarmem_plugin.report.auditing.showing import card

    preflight.check_alone("inspect")
    job.check({"--image": image})
    found = job.run(_single(image, model, label))
    console.show(found.to_dict(), card(found), as_json=as_json)


def _single(path: Path, model: str, label: int | None) -> Images:
    """Return a list of one picture.

    Raises:
        InputError: it is no file, or its class cannot be told.
    """
    import numpy as np

    from iarmem_plugin import plugins
    from iarmem_plugin.data.images import Images
    from iarmem_plugin.data.opening import check_conditions
    from iarmem_plugin.data.readers import FileReader

    if not path.is_file():
        raise InputError(f"--image {shown(path)} is no file; name one picture")
    conditions = plugins.conditions(model)
    told = "label" in conditions
    chosen = _label(path, label) if told else -1
    found = Images(
        (path.name,),
        np.array([chosen], np.int32),
        {chosen: path.resolve().parent.name} if told else {},
        np.zeros(1, np.int64),
        FileReader(path.resolve().parent),
        labelled=told,
    )
    check_conditions(found, conditions, plugins.num_classes(model))
    return found.check_headers()


def _label(path: Path, label: int | None) -> int:
    name = path.resolve().parent.name
    if label is not None:
        return label
    if not (name.isascii() and name.isdigit() and len(name) < 10):
        raise InputError(
            f"the class of {shown(path)} is not known: its folder {shown(name, 60)!r} is no class "
            "index; give it by --label"
        )
    return int(name)
