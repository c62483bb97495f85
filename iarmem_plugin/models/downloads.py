"""One file from the Hugging Face hub, compared with the digest that it should have."""

from __future__ import annotations

import hashlib
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from iarmem_plugin.errors import FetchError, InputError
from iarmem_plugin.text import shown
from iarmem_plugin.untrusted import read_text

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_SHA1 = re.compile(r"[0-9a-f]{40}")  # of a file that is not in the hub's large storage


def download(repository: str, file: str, sha256: str, folder: Path | None) -> Path:
    """Return the path of a file of the hub, downloaded if it is not there.

    Args:
        repository: repository on the hub.
        file: name of the file there.
        sha256: the file's SHA-256 where it is known; else it is compared with the hub's digest.
        folder: folder for the file; None for the hub's cache.

    Raises:
        FetchError: it cannot be downloaded, or is another file than it should be. Nothing that
            was there before is deleted or overwritten.
    """
    from huggingface_hub import errors, hf_hub_download, try_to_load_from_cache

    if folder is not None:
        folder = folder.expanduser().resolve()
        if os.path.lexists(folder / file):
            return _kept(repository, file, sha256, folder)
    started, cached = time.time(), try_to_load_from_cache(repository, file)
    try:
        path = Path(hf_hub_download(repository, file, local_dir=folder))
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # re-exported
        raise FetchError(_failure(repository, file, error)) from error
    expected = sha256 or _recorded(path, folder)
    if not _is_file_of(path, expected):
        new = str(path) != cached and path.stat().st_mtime >= started - 1
        raise FetchError(_refusal(repository, file, path, expected, new=new))
    return path


def _kept(repository: str, file: str, sha256: str, folder: Path) -> Path:
    """Return a file that is there already, once it is known to be the hub's."""
    path = folder / file
    expected = sha256 or _recorded(path, folder) or _published(repository, file)
    if not path.is_file() or not _is_file_of(path, expected):
        raise FetchError(
            f"{path} is there already, and is not {file} from {repository} (expected the digest "
            f"{expected[:16]}…); it was left as it is: move it away, or name another folder"
        )
    return path


def _is_file_of(path: Path, expected: str) -> bool:
    """Tell whether a file has a digest, as the hub writes it; one that is none says nothing."""
    if not _SHA256.fullmatch(expected) and not _GIT_SHA1.fullmatch(expected):
        return True
    digest = hashlib.sha256() if len(expected) == 64 else _git_sha1(path.stat().st_size)
    with path.open("rb") as content:
        return hashlib.file_digest(content, lambda: digest).hexdigest() == expected


def _git_sha1(size: int) -> hashlib._Hash:
    return hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)


def _recorded(path: Path, folder: Path | None) -> str:
    """Return the digest that the hub gave a file when it was downloaded; "" if it was not."""
    if folder is None:  # a link to a file that is called so
        return path.resolve().name
    record = folder / ".cache" / "huggingface" / "download" / f"{path.name}.metadata"
    with suppress(InputError, IndexError):
        return read_text(record, "the record of a download", limit=4096).split("\n")[1].strip()
    return ""


def _published(repository: str, file: str) -> str:
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

    try:
        return get_hf_file_metadata(hf_hub_url(repository, file)).etag or ""
    except errors.HfHubHTTPError as error:
        raise FetchError(_failure(repository, file, error)) from error
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # re-exported
        raise FetchError(_unreachable(file)) from error


def _refusal(repository: str, file: str, path: Path, expected: str, *, new: bool) -> str:
    wrong = f"{file} came from {repository} with other bytes than its digest {expected[:16]}… says"
    if not new:
        return f"{wrong}: {path} is damaged, and was left; move it away, and run the command again"
    for one in (path.resolve(), path):
        one.unlink(missing_ok=True)
    return f"{wrong}: the download was thrown away; run the same command again"


def _failure(repository: str, file: str, error: Exception) -> str:
    from huggingface_hub import errors

    local = isinstance(error, errors.LocalEntryNotFoundError)  # hides why the hub was not used
    cause = error.__cause__ if local else error
    if isinstance(cause, errors.HfHubHTTPError):
        reason = _reason(cause.response.status_code)
        return f"cannot fetch {file} from {repository}: {reason}"
    if local:
        return _unreachable(file)
    reason = shown(" ".join(str(error).split()), 120)
    return (
        f"the download of {file} from {repository} broke off ({reason}); "
        "run the same command again: it goes on where it stopped"
    )


def _unreachable(file: str) -> str:
    return (
        f"cannot fetch {file}: the hub {_endpoint()} cannot be reached; look at the "
        "connection, at HF_ENDPOINT and at HF_HUB_OFFLINE, and run the same command again"
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
