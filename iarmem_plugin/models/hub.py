"""The models that can be loaded, and their files: known, present, fetched.

Nothing is downloaded but by `fetch`.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from iarmem_plugin import plugins
from iarmem_plugin.errors import FetchError, InputError
from iarmem_plugin.interfaces import Variant

Files = tuple[Path, Path]
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


def file_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row's files, the transformer's first, and their hosts, one of `FILE_COLUMNS`."""
    hosted = "\n".join(row["repositories"]) or row["source"]
    return row["name"], "\n".join(row["files"]), hosted


def fetch(name: str, folder: Path | str | None = None) -> Files:
    """Download a model's weights and its tokenizer from the Hugging Face hub.

    A file that is there already is not downloaded again. The hub's own settings apply, such as
    ``HF_TOKEN``, ``HF_HOME`` and ``HF_ENDPOINT``.

    Args:
        name: name of the model, as listed by ``iarmem models``.
        folder: folder for the files; by default the hub's cache.

    Returns:
        the paths of the transformer's and the tokenizer's file.

    Raises:
        UnknownNameError: no installed adapter knows the model.
        InputError: the model is not hosted on the hub, or the folder is a file.
        FetchError: a file could not be downloaded.
    """
    variant = plugins.find_variant(name)[1]
    if variant.organism is not None:
        raise InputError(f"{name} is bundled: there is nothing to fetch")
    if len(variant.files) != 2 or len(variant.repositories) != 2:
        raise InputError(f"{name} is not on the Hugging Face hub; its files: {variant.source}")
    if folder is not None and Path(folder).exists() and not Path(folder).is_dir():
        raise InputError(f"{folder} is a file; give a folder for the downloads")
    pairs = zip(variant.repositories, variant.files, strict=True)
    transformer, tokenizer = (_download(*pair, folder) for pair in pairs)
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
        InputError: a file is not there, or one that a hosted model needs is not named.
    """
    variant = None if name in plugins.families() else plugins.find_variant(name)[1]
    first, second = (None if path is None else _file(path) for path in (weights, tokenizer))
    if variant is None or variant.repositories:
        named_files(name, variant, first, second)
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


def _file(path: str | Path) -> Path:
    if not Path(path).is_file():
        problem = "is a folder" if Path(path).is_dir() else "no such file"
        raise InputError(f"{problem}: {str(path)!r}; name a weight file on this machine")
    return Path(path)


def _advice(variant: Variant | None) -> str:
    if variant is None:
        return "weights of any size come from files that you name"
    files = present(variant)
    if files is not None:
        return f"they were fetched already, so give {options(files)}"
    hosted = f"{' and '.join(variant.files)} from {variant.source}"
    if variant.repositories:
        return f"'iarmem fetch {variant.name}' downloads {hosted}, and says what to type"
    return f"download {hosted}, and name them"


def _download(repository: str, file: str, folder: Path | str | None) -> Path:
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(repository, file, local_dir=folder))
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # re-exported
        raise FetchError(_failure(repository, file, error)) from error


def _failure(repository: str, file: str, error: Exception) -> str:
    from huggingface_hub import errors

    local = isinstance(error, errors.LocalEntryNotFoundError)  # hides why the hub was not used
    cause = error.__cause__ if local else error
    if isinstance(cause, errors.HfHubHTTPError):
        reason = _reason(cause.response.status_code)
        return f"cannot fetch {file} from {repository}: {reason}"
    if local:
        return (
            f"cannot fetch {file}: the hub {_endpoint()} cannot be reached; look at the "
            "connection, at HF_ENDPOINT and at HF_HUB_OFFLINE, and run the same command again"
        )
    return (
        f"the download of {file} from {repository} broke off ({' '.join(str(error).split())}); "
        "run the same command again: it goes on where it stopped"
    )


def _reason(code: int) -> str:
    if code in (401, 403):
        return (
            f"the hub refuses it (HTTP {code}): it may be private, gated or gone; accept its terms "
            "on its page and set HF_TOKEN, or download it yourself and name it"
        )
    if code == 404:
        return "there is no such file (HTTP 404); download it by hand and name it"
    return f"the hub answers HTTP {code}; run the same command again later"


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")
