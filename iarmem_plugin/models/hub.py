"""The models that can be loaded, and their files: known, present, fetched.

Nothing is downloaded but by `fetch`.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path
from typing import Any

from iarmem_plugin import plugins
from iarmem_plugin.errors import InputError, WeightsError
from iarmem_plugin.files import check_writable, looks_like_url
from iarmem_plugin.interfaces import Variant
from iarmem_plugin.models.downloads import download
from iarmem_plugin.text import shown

Files = tuple[Path, Path]
_LONGEST_ADVICE = 300  # so that a whole refusal is one line of at most 400 signs
MODEL_COLUMNS = (
    "model",
    "family",
    "blocks",
    "neurons",
    "parameters",
    "pixels",
    "licence",
    "here",
)
FILE_COLUMNS = ("model", "file", "hosted")


def known_models() -> list[dict[str, Any]]:
    """Return what is known about each model, by name; nothing is downloaded or loaded.

    Returns:
        for each model ``present``: whether its files are bundled or in the hub's cache; and in
        ``paths`` where they are in that cache. Files elsewhere are not looked for.
    """
    return [_row(variant) for _, variant in plugins.variants().values()]


def model_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row's cells for a person, one a column of `MODEL_COLUMNS`."""
    return (
        row["name"],
        row["family"],
        f"{row['blocks']}",
        f"{row['neurons']:,}",
        f"{row['parameters'] / 1e6:,.1f} M",
        f"{row['resolution']}",
        row["licence"],
        "yes" if row["present"] else "no",
    )


def file_cells(row: dict[str, Any]) -> tuple[str, list[str], list[str] | str]:
    """Return a row's files, the transformer's first, and their hosts, one of `FILE_COLUMNS`."""
    return row["name"], row["files"], row["repositories"] or row["source"]


def fetch(name: str, folder: Path | str | None = None) -> Files:
    """Download a model's weights and its tokenizer from the Hugging Face hub.

    A file that is there already is not downloaded again, and never overwritten. Each file is
    compared with the digest that the release or the hub gives it. The hub's own settings apply,
    such as ``HF_TOKEN``, ``HF_HOME`` and ``HF_ENDPOINT``.

    Args:
        name: name of the model, as listed by ``iarmem models``.
        folder: folder for the files; by default the hub's cache.

    Returns:
        the paths of the transformer's and the tokenizer's file.

    Raises:
        UnknownNameError: no installed adapter knows the model.
        InputError: the model is not hosted on the hub, or the folder is a file or cannot be made.
        FetchError: a file could not be downloaded, or is not the one that was released.
    """
    variant = plugins.find_variant(name)[1]
    if variant.organism is not None:
        raise InputError(f"{name} is bundled: there is nothing to fetch")
    if len(variant.files) != 2 or len(variant.repositories) != 2:
        raise InputError(f"{name} is not on the Hugging Face hub; its files: {variant.source}")
    place = None if folder is None else Path(folder)
    if place is not None and place.exists() and not place.is_dir():
        raise InputError(f"{folder} is a file; give a folder for the downloads")
    if place is not None:
        check_writable(place)
    known = variant.sha256 or ("", "")
    sources = zip(variant.repositories, variant.files, known, strict=True)
    transformer, tokenizer = (download(*source, place) for source in sources)
    return transformer, tokenizer


def present(variant: Variant) -> Files | None:
    """Return where `fetch` left a model's two files in the hub's cache, if both are there."""
    if not variant.repositories:
        return None
    from huggingface_hub import try_to_load_from_cache

    pairs = zip(variant.repositories, variant.files, strict=True)
    found = [try_to_load_from_cache(*pair) for pair in pairs]
    paths = [Path(path) for path in found if isinstance(path, str)]
    return (paths[0], paths[1]) if len(paths) == 2 else None


def named_files(
    name: str,
    variant: Variant | None,
    weights: Path | None,
    tokenizer: Path | None,
    *,
    bundled: Files | None = None,
) -> Files:
    """Return the files to load: those that the user named, or an organism's own.

    Args:
        name: name of the model.
        variant: facts about it; None for weights of any size.
        weights: file of the transformer's weights, where it is named.
        tokenizer: file of the tokenizer's weights, where it is named.
        bundled: files of an organism; None for any other model.

    Raises:
        InputError: a file is not named, or named for an organism; the message says what to type.
    """
    if bundled is not None:
        if weights is not None or tokenizer is not None:
            raise InputError(f"{name} is bundled: leave out --weights and --tokenizer")
        return bundled
    if weights is not None and tokenizer is not None:
        return weights, tokenizer
    named = {"--weights": weights, "--tokenizer": tokenizer}
    missing = " and ".join(option for option, path in named.items() if path is None)
    raise InputError(f"{name} needs {missing}: {_advice(variant)}")


def check_files(
    name: str, weights: str | Path | None, tokenizer: str | Path | None
) -> tuple[Path | None, Path | None]:
    """Return the files to load a model from, once they are known to be named and to be there.

    Args:
        name: name of a model or a family.
        weights: file of the transformer's weights.
        tokenizer: file of the image tokenizer's weights.

    Raises:
        UnknownNameError: no installed adapter knows the model.
        InputError: a file is not there, or one that a hosted model needs is not named, or one is
            named for a model that is bundled.
        WeightsError: a file begins as no weights do.
    """
    variant = None if name in plugins.families() else plugins.find_variant(name)[1]
    given = (weights, tokenizer)
    if variant is not None and variant.organism is not None and given != (None, None):
        raise InputError(f"{name} is bundled: leave out --weights and --tokenizer")
    first, second = (None if path is None else weight_file(path) for path in given)
    if variant is None or variant.repositories:
        named_files(name, variant, first, second)
    for path in (first, second):
        if path is not None:
            _check_start(path)
    return first, second


def options(files: Files) -> str:
    """Return the command-line options that name two files."""
    return shlex.join(("--weights", str(files[0]), "--tokenizer", str(files[1])))


def _row(variant: Variant) -> dict[str, Any]:
    paths = present(variant)
    return {
        "name": variant.name,
        "family": variant.family,
        "blocks": variant.blocks,
        "neurons": variant.neurons,
        "parameters": variant.parameters,
        "resolution": variant.resolution,
        "files": list(variant.files),
        "repositories": list(variant.repositories),
        "source": variant.source,
        "licence": variant.licence,
        "present": variant.organism is not None or paths is not None,
        "paths": [] if paths is None else [str(path) for path in paths],
    }


def weight_file(path: str | Path) -> Path:
    """Return the path of a weight file, once it is known that there is a file to be read.

    Raises:
        InputError: there is none, it is a URL, a folder, a device or a pipe, or may not be read,
            or its name is none that a file can have.
    """
    if looks_like_url(path):
        raise InputError(f"{shown(path)!r} looks like a URL; name a weight file on this machine")
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        problem = "no such file" if isinstance(error, FileNotFoundError) else f"{reason}"
    else:
        if stat.S_ISREG(mode) and os.access(path, os.R_OK):
            return Path(path)
        problem = "is a folder" if stat.S_ISDIR(mode) else "is not a file"
        problem = "may not be read" if stat.S_ISREG(mode) else problem
    raise InputError(f"{problem}: {shown(path)!r}; name a weight file on this machine")


def _check_start(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        problem = _no_weights(file.read(512))
    if problem:
        raise WeightsError(f"{shown(path)!r} holds no weights: it {problem}")


def _no_weights(start: bytes) -> str:
    """Say what a file is that no adapter could read, by its first bytes; else return nothing."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not start:
        return "is empty: fetch it again"
    if not start.strip(b"\0"):
        return "begins with nothing but zeros: fetch it again"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page that was saved in place of the file; fetch it by its download link"
    if text.startswith(b"version https://git-lfs"):
        return "is a pointer of git-lfs, not the file itself; run 'git lfs pull' in its folder"
    return ""


def _advice(variant: Variant | None) -> str:
    if variant is None:
        return "weights of any size come from files that you name"
    files = present(variant)
    if files is not None and len(options(files)) <= _LONGEST_ADVICE:
        return f"they were fetched already, so give {options(files)}"
    if files is not None:
        return f"they were fetched already, and 'iarmem fetch {variant.name}' says what to type"
    hosted = f"{' and '.join(variant.files)} from {variant.source}"
    if variant.repositories:
        return f"'iarmem fetch {variant.name}' downloads {hosted}, and says what to type"
    return f"download {hosted}, and name them"
