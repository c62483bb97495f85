"""Tokens and scores of chunks of images on disk, named by what they were made of."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float64, Shaped, UInt8

from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import FingerprintMismatchError, InputError
from iarmem_plugin.fingerprint import canonical_json
from iarmem_plugin.stages import Stages, forget
from iarmem_plugin.text import shown

KEY = re.compile(r"(tokens|scores)-[0-9a-f]{40}")
_FORMAT = {"format": "tokens and scores of ranked images, 1"}
_DIMS = ("image", "token", "bit", "part")


class Pieces:
    """A folder with the tokens, and with the scores, of chunks of images.

    A piece is whole or absent, and named by a hash over the contents of its chunk and over all that
    changes its numbers. So whatever has the same is found again: after a kill, in a longer list
    that begins alike, with another model of the same tokenizer.

    Args:
        folder: folder of the pieces; None keeps none.
        tokens: what changes tokens, see `of_tokens`.
        scores: what changes scores, see `of_scores`.
    """

    def __init__(
        self, folder: Path | None, tokens: Mapping[str, Any], scores: Mapping[str, Any]
    ) -> None:
        self._stages = None if folder is None else Stages(folder, _FORMAT)
        self._facts = {"tokens": canonical_json(tokens), "scores": canonical_json(scores)}
        if self._stages is not None:
            self._stages.check()
        self.kept = frozenset(() if self._stages is None else self._stages.finished())

    def tokens_key(self, content: UInt8[np.ndarray, "image 32"]) -> str:
        """Return the name of a chunk's tokens."""
        return f"tokens-{_hash(content.tobytes(), self._facts['tokens'].encode())}"

    def scores_key(
        self, content: UInt8[np.ndarray, "image 32"], images: Images, *, ids: bool
    ) -> str:
        """Return the name of a chunk's scores.

        Args:
            content: contents of the chunk's images.
            images: the chunk's images, whose labels and captions the model is told.
            ids: whether it is told their ids, too.
        """
        told = [images.labels.tobytes(), "\0".join(images.captions or ()).encode()]
        told += [images.ids.tobytes()] if ids else []
        parts = (self.tokens_key(content).encode(), *told, self._facts["scores"].encode())
        return f"scores-{_hash(*parts)}"

    def tokens(
        self, key: str, make: Callable[[], np.ndarray]
    ) -> Shaped[np.ndarray, "image token *rest"]:
        """Return tokens from the folder; or make them, and keep them there in few bytes."""
        found = self._load(key)
        if found is not None:
            return found["tokens"].to_numpy().astype(found.attrs["dtype"])
        made = make()
        kept = made if made.dtype.kind != "i" or made.min(initial=0) < 0 else _narrow(made)
        self._save(
            key,
            xr.Dataset({"tokens": (_DIMS[: kept.ndim], kept)}, attrs={"dtype": str(made.dtype)}),
        )
        return made

    def scores(self, key: str, make: Callable[[], np.ndarray]) -> Float64[np.ndarray, "image 2"]:
        """Return scores from the folder; or make them, and keep them there."""
        found = self._load(key)
        if found is not None:
            return found["scores"].to_numpy()
        made = make()
        self._save(key, xr.Dataset({"scores": (("image", "score"), made)}))
        return made

    def _load(self, key: str) -> xr.Dataset | None:
        """Return a piece; None where there is none that can be read, which is then made anew."""
        if self._stages is None or key not in self.kept:
            return None
        try:
            return self._stages.load(key).to_dataset()
        except (InputError, FingerprintMismatchError) as error:
            warnings.warn(f"made anew: {shown(error, 300)}", stacklevel=2)
            return None

    def _save(self, key: str, piece: xr.Dataset) -> None:
        if self._stages is not None:
            self._stages.save(key, xr.DataTree(piece))


def forget_pieces(folder: Path) -> None:
    """Delete tokens and scores in a folder, and the folder where it holds nothing else."""
    forget(folder, KEY)


def _narrow(tokens: Shaped[np.ndarray, "image token *rest"]) -> np.ndarray:
    """Return numbers from 0 in as few bytes as hold them."""
    return tokens.astype(np.min_scalar_type(int(tokens.max(initial=0))))


def _hash(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for one in parts:
        digest.update(len(one).to_bytes(8) + one)
    return digest.hexdigest()[:40]
