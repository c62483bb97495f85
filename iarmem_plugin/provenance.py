"""Where a number comes from: versions, weights, settings."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from typing import Any

import torch
from torch import nn

from iarmem_plugin.tracing import ImageARModel

LIBRARIES = ("iarmem", "torch", "nnsight", "numpy", "xarray", "zarr", "torch-fidelity")


def weights_sha256(*modules: nn.Module) -> str:
    """Return a hash over all tensors of modules: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for module in modules:
        for key, tensor in module.state_dict().items():
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(memoryview(raw.numpy()))
    return digest.hexdigest()


def model_provenance(model: ImageARModel) -> dict[str, Any]:
    """Return what identifies a model and the machine it ran on."""
    adapter = model.adapter
    parameter = next(adapter.network.parameters())
    return {
        "model": adapter.variant.name,
        "family": adapter.variant.family,
        "weights_sha256": weights_sha256(adapter.network),
        "tokenizer_sha256": weights_sha256(adapter.tokenizer),
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "device": str(parameter.device),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in LIBRARIES},
    }
