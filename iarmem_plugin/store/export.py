"""Slices of a store as files of their own, and the images that activate a neuron most."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.files import check_file, write_whole
from iarmem_plugin.store.reading import MAX_STACK_BYTES, with_plain_strings
from iarmem_plugin.store.store import ActivationStore


def read_slice(
    store: ActivationStore,
    select: Mapping[str, Sequence[int]],
    *,
    model: str | None = None,
) -> xr.DataArray:
    """Read the captured activations of some blocks, scales and neurons.

    Args:
        store: store to read from.
        select: numbers of blocks, scales, neurons or images (ids), by dim; all where left out.
        model: name of the model; may be left out where the store holds one.

    Returns:
        float32, dims (block, scale, neuron, image), with the coordinates of the store.

    Raises:
        InputError: there is no such block, scale or neuron, or more than 4 GB are selected.
    """
    data = store.dataset(model, "drop")["activation"].isel(model=0)
    for dim, numbers in select.items():
        if missing := sorted(set(numbers) - set(data[dim].to_numpy().tolist())):
            raise InputError(
                f"there is no {dim} {missing[0]}; there are {data[dim].to_numpy().min()} to "
                f"{data[dim].to_numpy().max()}"
            )
    chosen = data.sel({dim: list(numbers) for dim, numbers in select.items()})
    if chosen.nbytes > MAX_STACK_BYTES:
        raise InputError(
            f"{chosen.nbytes / 1e9:.0f} GB are selected; name fewer blocks, scales or neurons"
        )
    return with_plain_strings(chosen.drop_vars("captured").load())


def check_slice_file(out: Path) -> None:
    """Refuse what `save_slice` would; call it before the slice is read.

    Raises:
        InputError: the file is to be of another kind, or cannot be made.
    """
    if out.suffix not in (".nc", ".npz"):
        raise InputError(f"{out} is neither .nc nor .npz; name a file of one of these kinds")
    check_file(out)


def save_slice(activation: xr.DataArray, out: Path | str) -> None:
    """Write a slice to netCDF (``.nc``) or numpy's ``.npz``, whole or not at all.

    Raises:
        InputError: the file is to be of another kind, or cannot be made.
        DiskFullError: there is no room.
    """
    out = Path(out)
    check_slice_file(out)
    if out.suffix == ".nc":
        write_whole(out, activation.to_netcdf(engine="h5netcdf"))
        return
    arrays: dict[str, Any] = {str(key): _storable(c) for key, c in activation.coords.items()}
    content = io.BytesIO()
    np.savez(content, activation=activation.to_numpy(), **arrays)
    write_whole(out, content.getbuffer())


def top_images(activation: xr.DataArray, count: int) -> xr.DataArray:
    """Return a neuron's activations on the images that activate it most, the largest first.

    Args:
        activation: activations of one neuron, dims (image); of equal ones the earlier comes first.
        count: number of images, at most.
    """
    order = np.argsort(-activation.to_numpy(), kind="stable")
    return activation.isel(image=order[:count])


def _storable(coordinate: xr.DataArray) -> np.ndarray:
    values: np.ndarray = coordinate.to_numpy()
    return values.astype(str) if values.dtype == object else values
