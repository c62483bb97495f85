"""Where a number comes from: versions, weights, settings."""

from __future__ import annotations

import hashlib
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from iarmem_plugin.data.images import Images
from iarmem_plugin.interfaces import Adapter
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.plugins.blame import distribution, versions

NOT_KNOWN = "not known"
LIBRARIES = ("iarmem", "torch", "nnsight", "numpy", "xarray", "zarr", "torch-fidelity")


def weights_sha256(*modules: nn.Module | ImageARModel, dtype: torch.dtype | None = None) -> str:
    """Return a hash over all tensors of modules: names, types, shapes and bytes.

    Edits of a wrapped model count, however they are made.

    Args:
        modules: the modules.
        dtype: precision in which floating-point tensors count; None for their own.
    """
    digest = hashlib.sha256()
    for module in modules:
        for key, tensor in module.state_dict().items():
            if dtype is not None and tensor.is_floating_point():
                tensor = tensor.to(dtype)
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(memoryview(raw.numpy()))
    return digest.hexdigest()


def module_hashes(adapter: Adapter) -> dict[str, str]:
    """Return a hash of each module but the transformer, by role, with ``_`` for blanks."""
    return {
        role.replace(" ", "_"): weights_sha256(module)
        for role, module in adapter.modules.items()
        if role != "network"
    }


def model_provenance(model: ImageARModel) -> dict[str, Any]:
    """Return what identifies a model and the machine it ran on.

    ``weights_sha256`` and ``tokenizer_sha256`` are over the tensors as they are in memory, edits
    and precision included, so they do not depend on the file's format; an adapter's further modules
    have theirs under their role, such as ``text_encoder_sha256``. ``files`` says which files
    they were loaded from: by role, ``name`` without folder, ``sha256`` over the whole file as it
    was loaded, ``bytes``; it is empty for a model object that came from elsewhere. ``autocast`` is
    there where torch's autocast is on, and names the dtype in which it computes.
    """
    adapter = model.adapter
    parameter = next(adapter.network.parameters())
    return {
        "model": adapter.variant.name,
        "family": adapter.variant.family,
        "adapter_version": distribution(type(adapter)),
        "weights_sha256": weights_sha256(model),
        **{f"{role}_sha256": digest for role, digest in module_hashes(adapter).items()},
        "files": {role: dict(facts) for role, facts in adapter.files.items()},
        "dtype": str(parameter.dtype).removeprefix("torch."),
        **_autocast(parameter.device.type),
        "device": str(parameter.device),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in LIBRARIES} | versions(adapter),
    }


def _autocast(device: str) -> dict[str, str]:
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return {}
    return {"autocast": str(torch.get_autocast_dtype(device)).removeprefix("torch.")}


def commit() -> str:
    """Return the commit of the checkout that this package lies in, changes since not counted.

    It is read from the files of ``.git``; without a checkout it is ``"not known"``.
    """
    folder = Path(__file__).resolve().parents[2] / ".git"
    try:
        if folder.is_file():  # a worktree's
            folder = Path(folder.read_text().removeprefix("gitdir:").strip())
        found = (folder / "HEAD").read_text().strip()
        if found.startswith("ref: "):
            found = _of_branch(folder, found.removeprefix("ref: "))
    except (OSError, ValueError):
        found = ""
    return found if re.fullmatch("[0-9a-f]{40,64}", found) else NOT_KNOWN


def _of_branch(folder: Path, branch: str) -> str:
    common, listed = folder / "commondir", folder
    if common.is_file():
        listed = folder / common.read_text().strip()
    if (listed / branch).is_file():
        return (listed / branch).read_text().strip()
    lines = (listed / "packed-refs").read_text().splitlines()
    return next((line.split()[0] for line in lines if line.endswith(f" {branch}")), "")


def describe_images(images: Images) -> dict[str, Any]:
    """Return what identifies a list of images: paths, labels and classes, not their pixels."""
    return {
        "images": len(images),
        "image_list_sha256": images.digest,
        "skipped_images": list(images.skipped),
        "classes": {str(label): name for label, name in sorted(images.classes.items())},
    }
