"""Neurons as a list in a file, written by an export and taken back by a selector."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Selector
from iarmem_plugin.neurons.selectors import NEURONS, by_number, check_fraction
from iarmem_plugin.plugins.hookspecs import hookimpl
from iarmem_plugin.text import shown
from iarmem_plugin.untrusted import decode, read_small

SELECTED, PROVENANCE = "selected", "provenance"
_WHAT = "the neuron list"
_LARGEST = 2**31
_HDF5 = b"\x89HDF\r\n\x1a\n"


class Listed(Selector):
    """Select the neurons that a file lists, whatever their scores.

    The file is a CSV with the columns ``block,neuron``, counted from 0, or a netCDF file with
    ``selected``, bool with dims (block, neuron): both as `export` writes them. It is read once.

    Args:
        file: the list.
    """

    name = "listed"

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        self._content: bytes | None = None

    @property
    def parameters(self) -> Mapping[str, str]:
        """Return the file's name without folder, and the beginning of its content's SHA-256."""
        if self._content is None and not self.file.is_file():
            return {"file": self.file.name}
        return {"file": f"{self.file.name} sha256 {hashlib.sha256(self._read()).hexdigest()[:12]}"}

    def select(self, scores: xr.Dataset, *, fraction: float, seed: int) -> xr.DataArray:
        """Return the listed neurons, once it is known that they are the fraction that is stated.

        Args:
            scores: scores of all neurons; their sizes are the model's, and a listed neuron must be
                valid.
            fraction: share of all neurons that the list holds, in (0, 1]; rounded up, over the
                model or in each block.
            seed: not used.

        Raises:
            InputError: the file cannot be read, lists neurons that the model does not have, or
                that are not valid, or another share of them.
        """
        check_fraction(fraction)
        like = by_number(next(iter(scores.data_vars.values())))
        found = neurons_in(self._read(), self.file, (like.sizes["block"], like.sizes["neuron"]))
        coords = {dim: like[dim] for dim in NEURONS if dim in like.coords}
        found = found.assign_coords(coords)
        _check_share(found, fraction, self.file)
        _check_valid(found, scores, self.file)
        return found

    def _read(self) -> bytes:
        if self._content is None:
            self._content = read_small(self.file, _WHAT)
        return self._content


def read_neurons(file: Path, sizes: tuple[int, int]) -> xr.DataArray:
    """Read a list of neurons; see `Listed`.

    Args:
        file: the list.
        sizes: number of blocks, and of neurons in each.

    Returns:
        which neurons it lists, bool, dims (block, neuron).

    Raises:
        InputError: it cannot be read, or is of another model.
    """
    return neurons_in(read_small(file, _WHAT), file, sizes)


def neurons_in(content: bytes, file: Path, sizes: tuple[int, int]) -> xr.DataArray:
    """Return the neurons in the content of a list; see `read_neurons`."""
    found = _from_netcdf if content.startswith(_HDF5) else _from_csv
    selected = found(content, file, sizes)
    if not selected.any():
        raise InputError(f"{_WHAT} {shown(file)} lists no neurons")
    return xr.DataArray(selected, dims=NEURONS, name=SELECTED)


def as_csv(neurons: xr.DataArray, score: xr.DataArray | None = None) -> bytes:
    """Return the content of a list: ``block,neuron``, and ``score`` where that is known.

    Args:
        neurons: which neurons are listed, bool, dims (block, neuron).
        score: what they were chosen by, dims (block, neuron).
    """
    chosen = neurons.transpose(*NEURONS).to_numpy()
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["block", "neuron", *(["score"] if score is not None else [])])
    values = None if score is None else score.transpose(*NEURONS).to_numpy()
    for block, neuron in np.argwhere(chosen).tolist():
        said = [] if values is None else [repr(float(values[block, neuron]))]
        rows.writerow([block, neuron, *said])
    return text.getvalue().encode()


def as_netcdf(
    neurons: xr.DataArray, score: xr.DataArray | None, provenance: Mapping[str, Any]
) -> bytes:
    """Return the content of a netCDF list: ``selected``, with ``score`` where it is known.

    Args:
        neurons: which neurons are listed, bool, dims (block, neuron).
        score: what they were chosen by, dims (block, neuron).
        provenance: where they come from, as JSON values.
    """
    found = xr.Dataset({SELECTED: (NEURONS, neurons.transpose(*NEURONS).to_numpy().astype(bool))})
    if score is not None:
        values = score.transpose(*NEURONS).to_numpy().astype(np.float64)
        found["score"] = (NEURONS, values)
    found.attrs[PROVENANCE] = json.dumps(dict(provenance))
    packed = {name: {"zlib": True} for name in found.data_vars}
    return bytes(found.to_netcdf(engine="h5netcdf", encoding=packed))


def _from_netcdf(content: bytes, file: Path, sizes: tuple[int, int]) -> np.ndarray:
    try:
        with xr.open_dataset(io.BytesIO(content), engine="h5netcdf") as found:
            listed = found[SELECTED].transpose(*NEURONS)
            values = listed.to_numpy()
    except Exception as error:  # HDF5 raises anything at what is damaged
        raise InputError(
            f"{_WHAT} {shown(file)} holds no {SELECTED!r} with dims (block, neuron): "
            f"{shown(error, 80)}"
        ) from error
    if values.shape != sizes or not np.isin(values, (0, 1)).all():
        raise InputError(
            f"{_WHAT} {shown(file)} holds {values.dtype} of {values.shape}; the model has "
            f"{sizes[0]} blocks of {sizes[1]} neurons"
        )
    return values.astype(bool)


def _from_csv(content: bytes, file: Path, sizes: tuple[int, int]) -> np.ndarray:
    text = decode(content, f"{_WHAT} {shown(file)}")
    rows = csv.reader(io.StringIO(text, newline=""))
    header = [name.strip().lower() for name in next(rows, [])]
    if header[:2] != list(NEURONS):
        raise InputError(
            f"{_WHAT} {shown(file)} begins with {shown(','.join(header), 60)!r}; expected a line "
            "with the columns block,neuron"
        )
    selected = np.zeros(sizes, bool)
    for line, row in enumerate(rows, start=2):
        if not any(cell.strip() for cell in row):
            continue
        place = _place(row, line, file, sizes)
        if selected[place]:
            raise InputError(
                f"{_WHAT} {shown(file)}, line {line}: block {place[0]}, neuron {place[1]} comes "
                "twice; list each once"
            )
        selected[place] = True
    return selected


def _place(row: list[str], line: int, file: Path, sizes: tuple[int, int]) -> tuple[int, int]:
    where = f"{_WHAT} {shown(file)}, line {line}"
    numbers = [cell.strip() for cell in row[:2]]
    if len(numbers) < 2 or not all(one.isascii() and one.isdecimal() for one in numbers):
        raise InputError(
            f"{where}: {shown(','.join(row), 60)!r}; expected the numbers of a block and a neuron, "
            "from 0"
        )
    block, neuron = (min(int(one[:12]), _LARGEST) for one in numbers)
    if block >= sizes[0] or neuron >= sizes[1]:
        raise InputError(
            f"{where}: block {numbers[0][:12]}, neuron {numbers[1][:12]}; the model has {sizes[0]} "
            f"blocks of {sizes[1]} neurons, both counted from 0: the list is of another model"
        )
    return block, neuron


def _check_share(found: xr.DataArray, fraction: float, file: Path) -> None:
    """Refuse a fraction that, rounded up over the model or in each block, is another number."""
    count, exact = int(found.sum()), Fraction(repr(float(fraction))) * found.size
    if not exact <= count < exact + found.sizes["block"]:
        digits = 10 ** len(str(found.size))
        share = math.floor(count * digits / found.size) / digits
        raise InputError(
            f"{_WHAT} {shown(file)} holds {count} of {found.size} neurons, and the fraction "
            f"{fraction} was given; give {share}"
        )


def _check_valid(found: xr.DataArray, scores: xr.Dataset, file: Path) -> None:
    valid = scores.coords.get("valid")
    if valid is None:
        return
    allowed = by_number(valid).any([dim for dim in valid.dims if dim not in NEURONS])
    wrong = found.to_numpy() & ~allowed.transpose(*NEURONS).to_numpy()
    if count := int(wrong.sum()):
        raise InputError(
            f"{_WHAT} {shown(file)} holds {count} neurons that are not valid in these scores"
        )


@hookimpl
def provide_selectors() -> list[type[Selector]]:
    """Provide neurons that a file lists."""
    return [Listed]
