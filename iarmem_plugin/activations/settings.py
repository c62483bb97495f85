"""What a capture must have in common with the one that it goes on with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from iarmem_plugin.activations.run import Pass
from iarmem_plugin.store.format import group_attributes

if TYPE_CHECKING:
    from iarmem_plugin.models.tracing import ImageARModel


def captured_with(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a store's group that say how its activations came about.

    On a GPU, the number of CPU threads is left out: it changes no number there, and a run that
    was begun by one process goes on with several, which torchrun gives one thread each.
    """
    left_out = set() if provenance["device"] == "cpu" else {"torch_threads"}
    kept = {name: value for name, value in provenance.items() if name not in left_out}
    return {
        "provenance": kept,
        "checkpoint_sha256": provenance["weights_sha256"],
        "adapter_version": provenance["adapter_version"],
    }


def capture_settings(
    model: ImageARModel, work: Pass, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Return whatever changes the numbers, as for a store, for a run without one.

    Raises:
        InputError: a setting is no JSON value, there are no images, or a slab of none.
    """
    name, attributes = model.adapter.variant.name, captured_with(provenance)
    group = group_attributes(name, model.layout, work.images, work.slab, attributes)
    settings: dict[str, Any] = group["capture_settings"]
    return settings
