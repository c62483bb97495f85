"""The models that can be loaded, and their files: known, present, fetched.

Nothing is downloaded but by `fetch`.
"""

from __future__ import annotations

import os
import shlex
import stat
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iarmem_plugin import plugins
from iarmem_plugin.errors import EndedBySignal, InputError, WeightsError
from iarmem_plugin.files import check_writable, looks_like_url
from iarmem_plugin.interfaces import Adapter, Variant
from iarmem_plugin.models.downloads import download
from iarmem_plugin.plugins.blame import author, blamed
from iarmem_plugin.text import shown

Files = Mapping[str, Path]
ROLES = ("weights", "tokenizer")
"""Roles of the files of a model whose adapter names no others."""
_LONGEST_ADVICE = 300  # so that a whole refusal is one line of at most 400 signs
MODEL_COLUMNS = (
    "model",
    "family",
    "neurons",
    "parameters",
    "pixels",
    "licence",
    "here",
)
FILE_COLUMNS = ("model", "file", "hosted")
EXPOSURE_COLUMNS = ("group of pictures", "pictures", "shown in training")


def known_models() -> list[dict[str, Any]]:
    """Return what is known about each model, by name; nothing is downloaded or loaded.

    Returns:
        for each model ``present``: whether its files are bundled or in the hub's cache; and in
        ``paths`` where they are in that cache. Files elsewhere are not looked for. For an organism
        ``exposures``, as `Organism.exposures_by_group` gives them; none, and a `PluginWarning`,
        where its plugin fails.
    """
    return [_row(adapter, variant) for adapter, variant in plugins.variants().values()]


def model_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row's cells for a person, one a column of `MODEL_COLUMNS`."""
    return (
        row["name"],
        row["family"],
        f"{row['blocks']} × {row['neurons']:,}",
        f"{row['parameters'] / 1e6:,.1f} M",
        f"{row['resolution']}",
        row["licence"],
        "yes" if row["present"] else "no",
    )


def file_cells(row: dict[str, Any]) -> tuple[str, list[str], list[str] | str]:
    """Return a row's files, the transformer's first, and their hosts, one of `FILE_COLUMNS`."""
    return row["name"], row["files"], row["repositories"] or row["source"]


def exposure_cells(row: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return a line for each group of an organism's pictures, as `EXPOSURE_COLUMNS` says."""
    return [
        (
            one["group"],
            f"{one['pictures']}",
            f"{one['least']}" if one["least"] == one["most"] else f"{one['least']}–{one['most']}",
        )
        for one in row["exposures"]
    ]


def fetch(name: str, folder: Path | str | None = None) -> Files:
    """Download a model's files from the Hugging Face hub: weights, tokenizer, and any others.

    A file that is there already is not downloaded again, and never overwritten. Each file is
    compared with the digest that the release or the hub gives it. The hub's own settings apply,
    such as ``HF_TOKEN``, ``HF_HOME`` and ``HF_ENDPOINT``.

    Args:
        name: name of the model, as listed by ``iarmem models``.
        folder: folder for the files; by default the hub's cache.

    Returns:
        the path of each file by its role, such as ``"weights"``.

    Raises:
        UnknownNameError: no installed adapter knows the model.
        InputError: the model is not hosted on the hub, or the folder is a file or cannot be made.
        FetchError: a file could not be downloaded, or is not the one that was released.
    """
    variant = plugins.find_variant(name)[1]
    if variant.organism is not None:
        raise InputError(f"{name} is bundled: there is nothing to fetch")
    if not variant.files or variant.files.keys() != variant.repositories.keys():
        raise InputError(f"{name} is not on the Hugging Face hub; its files: {variant.source}")
    place = None if folder is None else Path(folder)
    if place is not None and place.exists() and not place.is_dir():
        raise InputError(f"{folder} is a file; give a folder for the downloads")
    if place is not None:
        check_writable(place)
    return {
        role: download(variant.repositories[role], file, variant.sha256.get(role, ""), place)
        for role, file in variant.files.items()
    }


def present(variant: Variant) -> Files | None:
    """Return where `fetch` left a model's files in the hub's cache, if all are there."""
    if not variant.repositories:
        return None
    from huggingface_hub import try_to_load_from_cache

    files, hosts = variant.files, variant.repositories
    found = {role: try_to_load_from_cache(host, files[role]) for role, host in hosts.items()}
    paths = {role: Path(path) for role, path in found.items() if isinstance(path, str)}
    return paths if len(paths) == len(files) else None


def named_files(
    name: str, variant: Variant | None, given: Files, *, bundled: Files | None = None
) -> Files:
    """Return the files to load: those that the user named, and an organism's own.

    Args:
        name: name of the model.
        variant: facts about it; None for weights of any size.
        given: files by role, those that were named.
        bundled: files of an organism; None for any other model.

    Raises:
        InputError: a file is not named, or an organism's tokenizer is; the message says what to
            type.
    """
    if bundled is not None:
        _check_bundled(name, given)
        return {**bundled, **given}
    roles = tuple(variant.files) if variant is not None and variant.files else ROLES
    if missing := [_option(role) for role in roles if role not in given]:
        raise InputError(f"{name} needs {' and '.join(missing)}: {_advice(variant)}")
    return given


def check_files(name: str, given: Mapping[str, str | Path | None]) -> dict[str, Path]:
    """Return the files to load a model from, once they are known to be named and to be there.

    Args:
        name: name of a model or a family.
        given: files by role; None where one is not named.

    Raises:
        UnknownNameError: no installed adapter knows the model.
        InputError: a file is not there, or one that a hosted model needs is not named, or another
            than the transformer's is named for a model that is bundled, or one in a role that the
            model does not know.
        WeightsError: a file begins as no weights do.
    """
    variant = None if name in plugins.families() else plugins.find_variant(name)[1]
    named = {role: path for role, path in given.items() if path is not None}
    if variant is not None and variant.organism is not None:
        _check_bundled(name, named)
    known = {*ROLES, *(() if variant is None else variant.files)}
    if variant is not None and (strange := sorted(named.keys() - known)):
        raise InputError(
            f"{name} has no file of the role {shown(strange[0], 60)!r}; its files are: "
            f"{', '.join(variant.files or ROLES)}"
        )
    files = {role: weight_file(path) for role, path in named.items()}
    if variant is None or variant.repositories or (variant.files and not variant.organism):
        named_files(name, variant, files)
    for path in files.values():
        _check_start(path)
    return files


def options(files: Files) -> str:
    """Return the command-line options that name files."""
    words = [
        [f"--{role}", str(path)] if role in ROLES else ["--file", f"{role}={path}"]
        for role, path in files.items()
    ]
    return shlex.join(word for pair in words for word in pair)


def _option(role: str) -> str:
    return f"--{role}" if role in ROLES else f"--file {shlex.quote(f'{role}=PATH')}"


def checked_file(path: str | Path) -> Path:
    """Return the path of a weight file, once it is known to be there and not to be something else.

    Raises:
        InputError: see `weight_file`.
        WeightsError: it begins as no weights do.
    """
    file = weight_file(path)
    _check_start(file)
    return file


def _check_bundled(name: str, given: Mapping[str, object]) -> None:
    """Refuse files of an organism but the weights of another transformer, trained as it was."""
    if given.keys() - {"weights"}:
        raise InputError(
            f"{name} is bundled with its tokenizer: leave out --tokenizer; --weights may name the "
            "file of another transformer that was trained on the same pictures"
        )


def _row(adapter: type[Adapter], variant: Variant) -> dict[str, Any]:
    paths = present(variant)
    return {
        "name": variant.name,
        "family": variant.family,
        "blocks": variant.blocks,
        "neurons": variant.neurons,
        "parameters": variant.parameters,
        "resolution": variant.resolution,
        "files": list(variant.files.values()),
        "repositories": list(variant.repositories.values()),
        "source": variant.source,
        "licence": variant.licence,
        "twin_of": variant.twin_of,
        "exposures": _exposures(adapter, variant),
        "present": variant.organism is not None or paths is not None,
        "paths": [] if paths is None else [str(path) for path in paths.values()],
    }


def _exposures(adapter: type[Adapter], variant: Variant) -> list[dict[str, Any]]:
    if variant.organism is None:
        return []
    try:
        with blamed(adapter):
            return [row._asdict() for row in variant.organism().exposures_by_group()]
    except EndedBySignal:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a stranger's may raise anything
        what = f"the organism of {shown(variant.name, 60)} is not shown: {shown(error, 200)}"
        warnings.warn(f"{author(adapter)}: {what}", plugins.PluginWarning, stacklevel=2)
        return []


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
    files_named = " and ".join(variant.files.values())
    hosted = f"{files_named} from {variant.source}" if variant.source else files_named
    if variant.repositories:
        return f"'iarmem fetch {variant.name}' downloads {hosted}, and says what to type"
    return f"download {hosted}, and name them" if variant.source else f"name its files, {hosted}"
