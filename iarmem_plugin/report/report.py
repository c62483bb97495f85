"""The report: what was extracted before and after, at what cost in quality, with its provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.files import check_results, finish_writing, is_ours, write_results
from iarmem_plugin.report.document import (
    FILE,
    SCHEMA,
    arms_of,
    check_same_numbers,
    floors_of,
    read_document,
    to_document,
)
from iarmem_plugin.report.grid import csv_tables as tables
from iarmem_plugin.report.membership.section import files as membership_files
from iarmem_plugin.report.membership.showing import SETS, SIGNALS
from iarmem_plugin.report.netcdf import (
    gallery_dataset,
    gallery_rows,
    netcdf,
    read_netcdf,
)
from iarmem_plugin.report.results import CAPTURED, Results, as_csv, from_csv
from iarmem_plugin.report.terminal import terminal_table
from iarmem_plugin.table import TextTable

DATASETS = (
    *("extraction.nc", "calibration.nc", "quality.nc"),
    *("scores.nc", "neurons.nc", "gallery.nc"),
    *("recovery.nc", "membership.nc", "depth.nc"),
)
FIGURES = (
    "extraction_by_group",
    "outcomes_against_loss",
    "extraction_against_quality",
    "heatmap",
    "sums_by_block",
    "neurons_by_block",
    "neurons_sorted",
    "histogram",
    "selected_by_block",
    "recovery",
)
FILES = (
    *(FILE, "report.html", CAPTURED, *DATASETS, *tables.FILES),
    *(f"figures/{name}.png" for name in FIGURES),
    *(SIGNALS, SETS),
)
PROGRESS = "progress"
"""Folder of the arms that an unfinished `iarmem mitigate` has finished."""
DAMAGES = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError)
"""What h5netcdf, xarray and json raise at files that are damaged, or not theirs."""


@dataclass(frozen=True, slots=True, repr=False)
class Report(Results):
    """Results that can be written, read again and shown; see `Results` for what they hold."""

    @classmethod
    def load(cls, folder: str | Path) -> Report:
        """Read what `save` wrote.

        Returns:
            an equal report; its provenance and settings are plain JSON values.

        Raises:
            InputError: where the folder does not hold a report, or a damaged one.
        """
        path = Path(folder)
        finish_writing(path)
        document = read_document(path)
        if document is None:
            raise InputError(
                f"{path} holds no {FILE} of schema {SCHEMA}, so it is not a report; give the "
                "folder that Report.save, iarmem mitigate or iarmem demo wrote"
            )
        try:
            report = cls(**_fields(path, document))
            check_same_numbers(document, report.to_dict())
        except DAMAGES as error:
            raise InputError(
                f"the report in {path} is damaged ({error}); copy the whole folder again, or make "
                "the report anew"
            ) from error
        return report

    def to_dict(self) -> dict[str, Any]:
        """Return what ``report.json`` holds: plain values, null for what is not a number."""
        return to_document(self)

    def save(self, folder: str | Path) -> Path:
        """Write the whole report as a folder, or nothing at all.

        A report that is there already is replaced; the folder itself, its mode, and files that are
        not part of a report stay as they are.

        Returns:
            the folder.

        Raises:
            InputError: where the folder holds something else than a report.
            DiskFullError: there is no room; an earlier report stays.
        """
        from iarmem_plugin.report.page import figures, render

        target = Path(folder)
        check_output_folder(target)
        pictures = figures(self)
        document = self.to_dict()
        contents = {
            **{f"figures/{name}.png": picture for name, picture in pictures.items()},
            **{name: netcdf(dataset) for name, dataset in self._datasets().items()},
            **({CAPTURED: as_csv(self.captured)} if self.captured else {}),
            **tables.csv_tables(self, document),
            **membership_files(self.membership),
            "report.html": render(self, pictures).encode(),
            FILE: (json.dumps(document, indent=1, allow_nan=False) + "\n").encode(),
        }
        write_results(target, contents, remove=FILES)
        return target

    def table(self) -> TextTable:
        """Return counts by group and arm, and quality, to print on a terminal."""
        return terminal_table(self)

    def _repr_html_(self) -> str:
        """Show the headline and the tables in a notebook; `save` writes the whole page."""
        from iarmem_plugin.report.page import render_summary

        return render_summary(self)

    def _datasets(self) -> dict[str, xr.Dataset]:
        roles = [arm.role for arm in self.arms]
        found = {
            "extraction.nc": self.extraction.assign_coords(arm_role=("arm", roles)),
            "scores.nc": self.scores,
        }
        if self.neurons is not None:
            found["neurons.nc"] = self.neurons.to_dataset(name="neurons")
        if self.calibration is not None:
            found["calibration.nc"] = self.calibration
        if self.features is not None:
            found["quality.nc"] = self.features
        if self.membership is not None:
            found["membership.nc"] = self.membership
        if self.depth is not None:
            found["depth.nc"] = self.depth
        if self.recovery is not None:
            found["recovery.nc"] = self.recovery
        if self.gallery:
            found["gallery.nc"] = gallery_dataset(self.gallery)
        return found


def check_output_folder(folder: str | Path) -> None:
    """Refuse a folder that `Report.save` would refuse; ask before the expensive part.

    Raises:
        InputError: where `folder` is a file, holds files but no report, or cannot be made.
    """
    path = Path(folder)
    check_results(path, FILES)
    check_results(path / PROGRESS, ())
    if not path.exists() or read_document(path) is not None:
        return
    if not all(map(_may_stay, path.iterdir())):
        raise InputError(
            f"{path} exists and holds no {FILE} of schema {SCHEMA}, so it is not overwritten; "
            "name a new or empty folder, or one that holds an earlier report"
        )


def _may_stay(entry: Path) -> bool:
    """Tell whether a killed run of ours may have left this in a folder without a report."""
    return (
        is_ours(entry.name)
        or (entry.name == PROGRESS and entry.is_dir())
        or (entry.name in ("figures", "tables") and not any(entry.iterdir()))
    )


def _fields(folder: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    extraction = read_netcdf(folder / "extraction.nc")
    captured, names = folder / CAPTURED, ("neurons", "gallery", "calibration", "quality")
    tried = ("recovery", "membership", "depth")
    recovery, membership, depth = (folder / f"{name}.nc" for name in tried)
    neurons, gallery, fixed, seen = (folder / f"{name}.nc" for name in names)
    return {
        "model": document["model"],
        "provenance": document["provenance"],
        "scores": read_netcdf(folder / "scores.nc"),
        "arms": arms_of(document, extraction["arm_role"].values.tolist()),
        "extraction": extraction.drop_vars("arm_role"),
        "gallery": gallery_rows(read_netcdf(gallery)) if gallery.exists() else (),
        "neurons": read_netcdf(neurons)["neurons"] if neurons.exists() else None,
        "features": read_netcdf(seen) if seen.exists() else None,
        "calibration": read_netcdf(fixed) if fixed.exists() else None,
        "captured": from_csv(captured.read_text(encoding="utf-8")) if captured.exists() else (),
        "floors": floors_of(document),
        "recovery": read_netcdf(recovery) if recovery.exists() else None,
        "membership": read_netcdf(membership) if membership.exists() else None,
        "depth": read_netcdf(depth) if depth.exists() else None,
    }
