"""The model and the pictures that options name, opened; imported when a command runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from iarmem_plugin import plugins
from iarmem_plugin.cli.console import bars_are_seen, progress_bars, warn
from iarmem_plugin.cli.memory import keep_freed_memory
from iarmem_plugin.cli.options import ModelOptions, ReadingOptions
from iarmem_plugin.data.images import Images
from iarmem_plugin.data.opening import check_conditions, open_images
from iarmem_plugin.errors import InputError

if TYPE_CHECKING:
    from iarmem_plugin.models.tracing import ImageARModel


def open_pictures(source: Path, model: str, reading: ReadingOptions) -> Images:
    """List the pictures of a folder, a list or an .npz file, without reading them.

    Where the model is told no class, they need none.

    Raises:
        InputError: they cannot be used, or a root is given for something else than a list.
    """
    root = reading.root
    if root is not None and source.suffix != ".txt":
        raise InputError(f"--image-root is for a list of pictures (.txt), and {source} is not one")
    conditions, num_classes = plugins.conditions(model), plugins.num_classes(model)
    pictures = open_images(
        source,
        root=root,
        num_classes=num_classes,
        classes=reading.classes,
        labelled="label" in conditions,
    )
    check_conditions(pictures, conditions, num_classes)
    return pictures


def read_whole(pictures: Images, reading: ReadingOptions) -> Images:
    """Read every picture, and skip those that do not open if that is wanted, with a warning.

    Raises:
        InputError: a picture does not open, and is not to be skipped.
    """
    with progress_bars(hidden=not bars_are_seen()) as bars:
        good = pictures.verify(reading.on_bad.value, workers=reading.workers, progress=bars)
    if good.skipped:
        rest = len(good.skipped) - 5
        names = ", ".join(good.skipped[:5]) + (f" and {rest} more" if rest > 0 else "")
        warn(f"skipped {len(good.skipped)} of {len(pictures)} pictures: {names}")
    return good


def load_model(
    chosen: ModelOptions,
    *,
    device: str | None = None,
    bands: Mapping[str, tuple[int, ...]] | None = None,
) -> ImageARModel:
    """Load a model, for a process that keeps the memory it frees.

    Args:
        chosen: which model, and from which files.
        device: device of this process, where it is not the chosen one.
        bands: predicted tokens by the name of a band; None or none keeps the model's scales.
    """
    from iarmem_plugin.models.loading import load

    keep_freed_memory()
    model = load(
        chosen.name,
        files={role: path for role, path in chosen.files.items() if path is not None},
        device=chosen.device if device is None else device,
        dtype=chosen.dtype.value,
        compile=chosen.compile,
    )
    if not bands:
        return model
    return model.with_scales([model.layout.band(*one) for one in bands.items()])
