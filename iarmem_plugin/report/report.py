"""The report: what was extracted before and after, at what cost in quality, with its provenance."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.table import Table
from rich.text import Text

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.counts import ORIGINAL, tally
from iarmem_plugin.files import check_writable
from iarmem_plugin.interfaces import QualityValue

SCHEMA = 1
FILE = "report.json"
KEYS = ("schema", "model", "provenance", "scores", "arms")


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One way the model was run: as it came, or with some neurons edited.

    Attributes:
        name: unique in a report; the first is ``"original"``.
        intervention: ``name``, its parameters and ``backend``; None for the original.
        selector: ``name``, its parameters and ``seed``; None for the original.
        fraction: share of neurons edited, in (0, 1]; None for the original.
        quality: measured image quality, each value with the label of its protocol.
    """

    name: str
    intervention: Mapping[str, Any] | None
    selector: Mapping[str, Any] | None
    fraction: float | None
    quality: tuple[QualityValue, ...]


@dataclass(frozen=True, slots=True)
class GalleryRow:
    """One candidate shown as pictures, all uint8 RGB with dims (height, width, 3).

    Attributes:
        path: the picture's path in its data set.
        group: the candidate's group.
        target: what a completion is compared with.
        original: the picture itself, where it is not the target.
        completions: arm name -> picture, similarity to the target, whether that is extracted.
    """

    path: str
    group: str
    target: np.ndarray
    original: np.ndarray | None
    completions: Mapping[str, tuple[np.ndarray, float, bool]]


@dataclass(frozen=True, slots=True)
class Report:
    """The result before and after, complete enough to be checked by someone else.

    Attributes:
        model: name of the variant.
        provenance: settings, versions, seeds, hashes; may be nested.
        scores: ``score`` and, where known, ``mean_activation``, dims (block, scale, neuron), with
            the coordinates ``valid`` and ``scale_name``, and the attribute ``metric``.
        arms: what was run; the first is ``"original"``.
        extraction: ``similarity``, ``equal_tokens`` and ``extracted`` with dims (arm, candidate),
            ``tokens`` (arm, candidate, token); coordinates ``group``, ``path``, ``label`` and
            ``image`` (candidate); attributes ``threshold``, ``threshold_source``,
            ``similarity`` and ``prefix_tokens``.
        gallery: candidates to show as pictures.
        neurons: bool, dims (arm, block, neuron): what each arm edited.

    Raises:
        InputError: where arms are missing, doubled or in another order in `extraction`.
    """

    model: str
    provenance: Mapping[str, Any]
    scores: xr.Dataset
    arms: tuple[ArmResult, ...]
    extraction: xr.Dataset
    gallery: tuple[GalleryRow, ...]
    neurons: xr.DataArray | None

    def __post_init__(self) -> None:
        """Refuse arms and an extraction that do not belong together."""
        names = [arm.name for arm in self.arms]
        given = [str(name) for name in self.extraction["arm"].values]
        if names[:1] != [ORIGINAL] or len(set(names)) < len(names) or names != given:
            raise InputError(
                f"the arms are {names} and those of the extraction {given}; a report needs both "
                f"alike, each name once, and {ORIGINAL!r} first"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return what ``report.json`` holds: plain values, null for what is not a number."""
        counts = tally(self.extraction)
        scores = {
            "metric": str(self.scores.attrs["metric"]),
            "by_block_and_scale": block_sums(self.scores).values,
        }
        return {
            "schema": SCHEMA,
            "model": self.model,
            "provenance": _plain(self.provenance),
            "scores": _plain(scores),
            "arms": [_plain(_arm(arm, counts)) for arm in self.arms],
        }

    def save(self, folder: str | Path) -> Path:
        """Write the whole report as a folder, or nothing at all.

        A report that is there already is replaced; files beside it that are no part of a report
        stay.

        Returns:
            the folder, as given.

        Raises:
            InputError: where the folder holds something else than a report.
        """
        from iarmem_plugin.report.page import figures, render

        target = Path(folder).resolve()
        check_output_folder(target)
        pictures = figures(self)
        texts = {
            FILE: json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n",
            "report.html": render(self, pictures),
        }
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            self._write(draft / "new", texts, pictures)
            _put_in_place(draft, target)
        finally:
            shutil.rmtree(draft)
        return Path(folder)

    def table(self) -> Table:
        """Return counts by group and arm, and quality, to print on a terminal."""
        from iarmem_plugin.report.page import extraction_rows, quality_rows

        counted, measured = extraction_rows(self), quality_rows(self)
        notes = [f"[{place}] {row.name}" for place, row in enumerate(measured, start=1)]
        table = Table(
            title=Text(f"{self.model}: extracted candidates, and image quality"),
            caption=Text("\n".join(notes), justify="left"),
        )
        table.add_column("")
        for name in counted[0].cells:
            table.add_column(Text(name), justify="right")
        for row in counted:
            table.add_row(Text(row.name), *(Text(cell.text) for cell in row.cells.values()))
        for place, row in enumerate(measured, start=1):
            name = f"{row.name.partition(' (')[0]} [{place}]"
            table.add_row(Text(name), *(Text(cell.text) for cell in row.cells.values()))
        return table

    def _repr_html_(self) -> str:
        """Show the headline and the tables in a notebook; `save` writes the whole page."""
        from iarmem_plugin.report.page import render_summary

        return render_summary(self)

    def _write(self, folder: Path, texts: Mapping[str, str], pictures: Mapping[str, bytes]) -> None:
        (folder / "figures").mkdir(parents=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        for name, picture in pictures.items():
            (folder / "figures" / f"{name}.png").write_bytes(picture)
        _write_netcdf(self.extraction, folder / "extraction.nc")
        _write_netcdf(self.scores, folder / "scores.nc")
        if self.neurons is not None:
            _write_netcdf(self.neurons.to_dataset(name="neurons"), folder / "neurons.nc")


def block_sums(scores: xr.Dataset) -> xr.DataArray:
    """Sum the metric over each block's neurons; a neuron that is not valid counts 0.

    Returns:
        float64, dims (block, scale).
    """
    kept = scores["score"].where(scores["valid"], 0.0).astype("float64")
    return kept.sum("neuron", skipna=False).transpose("block", "scale")


def check_output_folder(folder: str | Path) -> None:
    """Refuse a folder that `Report.save` would refuse; ask before the expensive part.

    Raises:
        InputError: where `folder` is a file, holds files but no report, or cannot be made.
    """
    path = Path(folder)
    check_writable(path)
    if Path.cwd().is_relative_to(path.resolve()):
        raise InputError(f"{path} is, or holds, the current folder; name a folder inside it")
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not _is_report(path):
        raise InputError(
            f"{path} exists and holds no {FILE} of schema {SCHEMA}, so it is not overwritten; "
            "name a new or empty folder, or one that holds an earlier report"
        )


def _is_report(folder: Path) -> bool:
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and set(KEYS) <= set(found) and found["schema"] == SCHEMA


def _put_in_place(draft: Path, target: Path) -> None:
    new, old = draft / "new", draft / "old"
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    finally:  # also when interrupted: the earlier report comes back
        if old.exists() and not target.exists():
            old.rename(target)
    if old.exists():
        ours = {FILE, "report.html", "extraction.nc", "scores.nc", "neurons.nc", "figures"}
        for entry in old.iterdir():
            if entry.name not in ours:
                os.replace(entry, target / entry.name)


def _write_netcdf(dataset: xr.Dataset, path: Path) -> None:
    stored = dataset.drop_encoding()
    stored.attrs = {name: _attribute(value) for name, value in dataset.attrs.items()}
    packed = {name: {"zlib": True} for name in stored.data_vars}
    stored.to_netcdf(path, engine="h5netcdf", encoding=packed)


def _attribute(value: object) -> str | int | float:
    # netCDF attributes hold no null, truth value or mapping: those are written as JSON
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return value
    return json.dumps(_plain(value))


def _arm(arm: ArmResult, counts: xr.Dataset) -> dict[str, Any]:
    mine = counts.sel(arm=arm.name)
    extraction = {
        str(group): {
            "extracted": int(mine["extracted"].sel(group=group)),
            "candidates": int(mine["candidates"].sel(group=group)),
            "low": float(mine["low"].sel(group=group)),
            "high": float(mine["high"].sel(group=group)),
        }
        for group in counts["group"].values
    }
    return {
        "name": arm.name,
        "intervention": arm.intervention,
        "selector": arm.selector,
        "fraction": arm.fraction,
        "extraction": extraction,
        "quality": [asdict(value) for value in arm.quality],
    }


def _plain(value: Any) -> Any:
    """Return JSON values alone: null for NaN and infinity, text for whatever JSON does not know."""
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)
