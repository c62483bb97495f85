"""Settings of every test."""

from __future__ import annotations

import random
from unittest.mock import patch

import pytest
import torch
from hypothesis import settings

# Before nnsight mounts attributes on `object`, after which beartype cannot be imported. It looks at
# a random item of a list, which it draws here from a generator of its own, not from Python's.
with patch("random.getrandbits", random.Random(0).getrandbits):
    import beartype  # noqa: F401  # imported for that effect

torch.set_num_threads(1)
settings.register_profile("iarmem", deadline=None)  # first calls are slow
settings.load_profile("iarmem")

LONGEST = (  # files that begin first, so that no process is left alone with one at the end
    "test_train_organism.py",
    "test_distributed.py",
    "test_demo.py",
    "test_cluster.py",
    "test_dataloader.py",
    "test_organisms.py",
    "test_pythons.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; else the order stays."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
