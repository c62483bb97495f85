"""What can be refused before the work: without the model, or with it, but before a pass.

Everything here is quick, reads no picture further than its header, and leaves nothing behind.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iarmem_plugin.errors import InputError
from iarmem_plugin.files import check_space, check_writable, looks_like_url
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    import xarray as xr

    from iarmem_plugin.cli.options import ModelOptions
    from iarmem_plugin.data.images import Images
    from iarmem_plugin.jobs.arms import Arm
    from iarmem_plugin.jobs.quality import QualityProtocol
    from iarmem_plugin.models.tracing import ImageARModel

MOST = {
    "--seed": 2**53,  # which every reader of JSON gives back
    "--subset-seed": 2**53,
    "--workers": 512,  # each is a process
    "--views": 10_000,
    "--random-sets": 10_000,
    "--generated": 10_000_000,
    "--generations": 1_000_000,
    "--seeds": 1000,
    "--check-batching": 1_000_000,
}
_CELL_BYTES = 32  # of a neuron at a scale: score, mean activation, validity, top image
_FIGURE_BYTES = 2_000_000

Sources = Mapping[str, Path | None]  # what an option names, by the option


# --- before the model


def check_numbers(numbers: Mapping[str, int]) -> None:
    """Refuse numbers that no machine could do anything with.

    Args:
        numbers: value by option, of those in `MOST`.

    Raises:
        InputError: naming the option and its largest value.
    """
    for option, number in numbers.items():
        if number > MOST[option]:
            raise InputError(
                f"{option} {shown(number, 40)} was given; expected at most {MOST[option]}"
            )


def check_sources(sources: Sources) -> None:
    """Refuse what cannot be read at all; whether it holds what it should is seen when it is opened.

    Args:
        sources: paths by the options that name them; None and what does not exist are passed over.

    Raises:
        InputError: a URL, a device or pipe, or what may not be read.
    """
    for option, path in sources.items():
        if path is not None:
            _check_source(option, path)


def check_pictures(sources: Sources) -> None:
    """Refuse sources of pictures that cannot be read, and the root of the file system.

    Raises:
        InputError: see `check_sources`.
    """
    check_sources(sources)
    for option, path in sources.items():
        if path is not None and path.resolve().parent == path.resolve():
            raise InputError(
                f"{option} {path} is the root of all files; name the folder that holds a folder of "
                "pictures for each class"
            )


def check_apart(out: Path, sources: Sources, *, option: str = "--out") -> None:
    """Refuse results among the pictures, where they would be taken for a class, or in their place.

    Args:
        out: folder or file that is written.
        sources: folders or files of pictures by the options that name them.
        option: option that names the folder.

    Raises:
        InputError: naming both.
    """
    for other, path in sources.items():
        if path is not None and path.is_file() and out.exists() and out.samefile(path):
            raise InputError(f"{option} {shown(out)} is the file of {other}; name another")
        if path is None or not path.is_dir() or not out.resolve().is_relative_to(path.resolve()):
            continue
        inside = out.resolve().relative_to(path.resolve()).parts
        if not any(part.startswith(".") for part in inside):  # these are not listed
            raise InputError(
                f"{option} {shown(out)} lies inside {other} {shown(path)}, whose folders are "
                "classes; name a folder elsewhere"
            )


def check_scores_place(
    out: Path, metrics: Sequence[str], store: str | None, sources: Sources
) -> None:
    """Refuse a folder in which scores, or how far a run has come, could not be written.

    Raises:
        InputError: it is a file, a URL or holds other files, a name in it is taken, the store
            would be in its way, or what an option names would be replaced.
    """
    from iarmem_plugin.jobs.scores import CHECKPOINTS, check_scores_folder
    from iarmem_plugin.store import local_folder

    kept = None if store is None else local_folder(store)
    check_scores_folder(out, kept, metrics=metrics[1:], sources=sources)
    check_writable(out / CHECKPOINTS / "state")


def check_store_place(place: str, model: str, sources: Sources) -> None:
    """Refuse a place at which activations could not be kept.

    Args:
        place: path or URL of the store.
        model: name of the model.
        sources: folders of pictures by the options that name them.

    Raises:
        InputError: no such kind of place, a place that cannot be written, or one inside another.
        NotAStoreError: it holds something else.
    """
    from iarmem_plugin.store import local_folder
    from iarmem_plugin.store.format import group_name
    from iarmem_plugin.store.store import holds

    local, name = local_folder(place), group_name(model)
    if local is None:
        return  # asked for when it is opened, since that takes its time
    check_writable(local.with_name(f"{local.name}.{name}.lock"))
    check_writable(local)
    holds(place, name)
    check_apart(local, sources, option="--store")


def check_alone(command: str) -> None:
    """Refuse to do in several processes what one does.

    Raises:
        InputError: torchrun started several.
    """
    from iarmem_plugin.activations.distributed import started_processes

    rank, world, _ = started_processes()
    if world > 1:
        raise InputError(
            f"this is process {rank} of {world} (WORLD_SIZE), and 'iarmem {command}' runs in one; "
            "start it without torchrun, or unset WORLD_SIZE"
        )


def check_device(name: str) -> None:
    """Refuse a device that this process, alone or one of those of torchrun, does not have.

    Raises:
        InputError: saying what there is.
    """
    from iarmem_plugin.activations.distributed import Ranks, started_processes
    from iarmem_plugin.models import loading

    loading.check_device(Ranks(*started_processes()).device(name))


def check_scores_of(model: ModelOptions, scores: xr.Dataset, arms: Sequence[Arm]) -> None:
    """Refuse scores of a model of another size, and those from which no neurons can be selected.

    Raises:
        UnknownNameError: no such model.
        InputError: the scores are of another model, or lack what a selector needs.
    """
    from iarmem_plugin import plugins
    from iarmem_plugin.jobs.scores import check_size
    from iarmem_plugin.neurons.selectors import select

    if plugins.num_classes(model.name) is not None:  # else the weights tell the size
        variant = plugins.find_variant(model.name)[1]
        check_size(scores, variant.blocks, variant.neurons)
    for arm in arms:
        if arm.selector is not None and arm.role != "control":
            select(scores, fraction=arm.fraction, selector=arm.selector, seed=arm.seed)


# --- with the model, before a pass


def check_fit(model: ImageARModel, pictures: Sequence[Images | None]) -> None:
    """Refuse pictures that lack what the model must be told, or whose labels are not its classes.

    Raises:
        InputError: naming the first such picture.
    """
    from iarmem_plugin.data.opening import check_conditions

    adapter = model.adapter
    for images in pictures:
        if images is not None:
            check_conditions(images, adapter.conditions, adapter.variant.num_classes)


def check_room(out: Path, model: ImageARModel, *, completions: int = 0, metrics: int = 1) -> None:
    """Refuse a disk with too little room for the results.

    Args:
        out: folder that is written.
        model: model whose neurons are scored.
        completions: number of images that are completed, those of all arms.
        metrics: number of scores of each neuron.

    Raises:
        DiskFullError: saying what is needed and what is free.
    """
    layout: Any = model.layout
    cells = layout.num_blocks * layout.neurons_per_block * len(layout.scales)
    size = cells * metrics * _CELL_BYTES + completions * (len(layout.predicting) + 8) * 4
    check_space(out, size + _FIGURE_BYTES)


def check_features_room(out: Path, quality: QualityProtocol | None, *, arms: int) -> None:
    """Refuse a disk with too little room for what the quality measure sees of images.

    Args:
        out: folder that is written.
        quality: how image quality is measured, its references read; None passes.
        arms: number of arms in which images are generated.

    Raises:
        DiskFullError: saying what is needed and what is free.
    """
    from iarmem_plugin.report.features import kept_bytes

    if quality is None:
        return
    floors = [side for floor in quality.floors for side in (floor.real, floor.other)]
    real = [kept_bytes(*one.shape) for one in (*quality.references.values(), *floors)]
    real += [one.covariance.nbytes + one.mean.nbytes for one in quality.files]
    made = kept_bytes(len(quality.condition), quality.width, quality.seeds)
    check_space(out, sum(real) + arms * made + _FIGURE_BYTES)


def _check_source(option: str, path: Path) -> None:
    if looks_like_url(path):
        raise InputError(
            f"{option} {shown(path)} looks like a URL; name a file or folder on this machine"
        )
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{option} {shown(path)} cannot be opened: {reason}") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{option} {shown(path)} is a device or pipe; name a file or folder")
    if not os.access(path, os.R_OK | (os.X_OK if stat.S_ISDIR(mode) else 0)):
        raise InputError(f"{option} {shown(path)} may not be read; see its permissions")
