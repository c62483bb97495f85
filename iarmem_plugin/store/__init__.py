"""Activations on disk."""

from __future__ import annotations

from iarmem_plugin.store.cluster import score_on_cluster
from iarmem_plugin.store.export import read_slice, save_slice, top_images
from iarmem_plugin.store.group import ModelGroup
from iarmem_plugin.store.places import StoreLike, local_folder
from iarmem_plugin.store.resume import Lock, StoreOptions, capture_into, open_for_capture
from iarmem_plugin.store.store import ActivationStore

__all__ = [
    "ActivationStore",
    "Lock",
    "ModelGroup",
    "StoreLike",
    "StoreOptions",
    "capture_into",
    "local_folder",
    "open_for_capture",
    "read_slice",
    "save_slice",
    "score_on_cluster",
    "top_images",
]
