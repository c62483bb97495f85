"""Settings of every test."""

from __future__ import annotations

# First of all: nnsight mounts attributes on `object`, after which beartype cannot be imported.
import beartype  # noqa: F401  # imported for that effect
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("iarmem", deadline=None)  # first calls are slow
settings.load_profile("iarmem")
