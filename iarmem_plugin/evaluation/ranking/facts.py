"""What changes a ranking: the model, how it computes, and the view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iarmem_plugin.data.augmentation import Augmentation
from iarmem_plugin.models.provenance import model_provenance
from iarmem_plugin.models.tracing import ImageARModel

_OF_MODEL = ("model", "dtype", "autocast", "views")


def made_with(model: ImageARModel, views: Augmentation) -> dict[str, Any]:
    """Return what `model_provenance` says, and the view that the model is shown."""
    return model_provenance(model) | {"views": dict(views.provenance)}


def identity(made: ImageARModel | Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be equal where a ranking is used: hashes, name, precision and view.

    Args:
        made: a model, shown its own view; or the provenance of a ranking.
    """
    if isinstance(made, ImageARModel):
        made = made_with(made, made.adapter.variant.views)
    hashes = {name: one for name, one in made.items() if name.endswith("_sha256")}
    hashes.pop("image_list_sha256", None)
    return {**hashes, **{name: made[name] for name in _OF_MODEL if name in made}}


def of_tokens(made: Mapping[str, Any]) -> dict[str, Any]:
    """Return what changes the tokens of a picture: the tokenizer and the view.

    Args:
        made: what `made_with` returned.
    """
    own = {name: one for name, one in identity(made).items() if name.endswith("_sha256")}
    own.pop("weights_sha256")
    return own | {name: made[name] for name in ("adapter_version", "views")}


def of_scores(made: Mapping[str, Any], batch_size: int, positions: list[int]) -> dict[str, Any]:
    """Return what changes the scores of tokens.

    Args:
        made: what `made_with` returned.
        batch_size: images in one pass.
        positions: token positions that count.
    """
    device = str(made["device"]).partition(":")[0]
    return identity(made) | {
        "adapter_version": made["adapter_version"],
        "device": device,
        "torch": made["versions"]["torch"],
        "torch_threads": made["torch_threads"] if device == "cpu" else None,
        "batch_size": batch_size,
        "positions": positions,
    }
