"""A mitigated checkpoint as a file, in the format of the original, with its card and its list."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import xarray as xr

from iarmem_plugin import plugins
from iarmem_plugin.checks import check_kind
from iarmem_plugin.disk import Content
from iarmem_plugin.errors import InputError
from iarmem_plugin.files import Streamed, check_file, check_space, write_results
from iarmem_plugin.interfaces import Checkpoint, Intervention
from iarmem_plugin.jobs.export.card import Told, called, card
from iarmem_plugin.jobs.export.edit import check_rest, make_edit
from iarmem_plugin.jobs.export.wanted import Wanted, from_list, from_report
from iarmem_plugin.jobs.export.writing import ENDINGS, as_file, check_types
from iarmem_plugin.models.hub import checked_file
from iarmem_plugin.models.loading import PRECISIONS
from iarmem_plugin.models.provenance import weights_sha256
from iarmem_plugin.neurons.listed import as_csv, as_netcdf, read_neurons
from iarmem_plugin.plugins.blame import blamed
from iarmem_plugin.report.document import FILE
from iarmem_plugin.report.report import Report
from iarmem_plugin.text import shown

_CARD_BYTES = 2_000_000


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        path: the checkpoint.
        card: the model card.
        lists: the neurons as CSV and as netCDF.
        sha256: of the checkpoint's file.
        neurons: number of edited neurons.
        intervention: what was done to them, in words.
    """

    path: Path
    card: Path
    lists: tuple[Path, Path]
    sha256: str
    neurons: int
    intervention: str


def export(
    source: Report | str | Path,
    out: str | Path,
    *,
    arm: str | None = None,
    half: int | None = None,
    neurons: xr.DataArray | str | Path | None = None,
    intervention: str | Intervention | None = None,
    weights: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a mitigated checkpoint in the format of the original, with a model card beside it.

    The file differs from the original in the edited neurons' weights alone, each in the file's own
    dtype, and loads wherever the original did. Beside it stand the card (``.md``), and the list of
    its neurons (``.neurons.csv``, ``.neurons.nc``), which the selector ``listed`` takes back. All
    of it is written, or nothing.

    Args:
        source: a report or its folder; or the name of a model or family.
        out: file to write: ``.pth`` holds all that the original held, nested as it was;
            ``.safetensors`` the transformer's tensors alone.
        arm: name of the report's arm; not needed where only one is a treatment.
        half: 0 or 1, of a cross-fitted arm: the candidates that its neurons were tested with.
        neurons: of a model: which neurons, bool, dims (block, neuron); or a list of them.
        intervention: of a model: change to the weights, or how it is called, such as
            ``"scale-weights:factor=0.5"``.
        weights: file of the unmodified transformer; a bundled organism needs none.
        overwrite: whether files that are there are replaced.

    Returns:
        the checkpoint's path.

    Raises:
        InputError: an arm that changes no weights of chosen neurons, weights that the report was
            not made with, or a file that is there.
        UnknownNameError: no such model, intervention or report.
        WeightsError: the file does not hold such weights.
        DiskFullError: there is no room; nothing is written.
    """
    wanted = _wanted(source, arm, half, neurons, intervention)
    return exported(wanted, Path(out), weights=weights, overwrite=overwrite).path


def wanted_from(source: str | Path, **said: Any) -> Wanted:
    """Return what `export` is to write; see there."""
    return _wanted(source, *(said[key] for key in ("arm", "half", "neurons", "intervention")))


def exported(
    wanted: Wanted, out: Path, *, weights: str | Path | None, overwrite: bool = False
) -> Exported:
    """Write a checkpoint, its card and its lists; see `export`.

    Args:
        wanted: from `from_report` or `from_list`.
        out: file to write.
        weights: file of the unmodified transformer.
        overwrite: whether files that are there are replaced.
    """
    names = _names(out)
    _check_places(out, names, overwrite)
    checkpoint = _opened(wanted, weights, out)
    check_space(out.parent, as_file(checkpoint, out.suffix, {}).size + _CARD_BYTES)
    dtype = _precision(wanted)
    before = _checked_hash(wanted, checkpoint, dtype)
    chosen = _neurons(wanted, checkpoint)
    with torch.no_grad(), blamed(wanted.intervention):
        undoing = make_edit(checkpoint, chosen, wanted.intervention, wanted.mean)
    check_rest(checkpoint, _opened(wanted, weights, out), chosen)
    after = weights_sha256(checkpoint.network, dtype=getattr(torch, dtype))
    lists = (names[2], names[3])
    told = Told(wanted, checkpoint, chosen, undoing, names[0], lists, dtype, before, after)
    sha256 = _write(told, out.parent, names)
    return Exported(
        out,
        out.parent / names[1],
        (out.parent / lists[0], out.parent / lists[1]),
        sha256,
        int(chosen.sum()),
        called(wanted.intervention),
    )


def _wanted(
    source: object, arm: str | None, half: int | None, neurons: Any, intervention: Any
) -> Wanted:
    check_kind("the source", source, (Report, str, Path), "a report, its folder, or a model's name")
    report = source if isinstance(source, Report) else _report_at(cast("str | Path", source))
    if report is None:
        if arm is not None or half is not None:
            raise InputError(f"--arm and --half are of a report, and {source} is a model")
        return from_list(str(source), neurons, intervention)
    if neurons is not None or intervention is not None:
        raise InputError(
            "a report says which neurons and which intervention: leave out --neurons and "
            "--intervention, or name the model in place of the report"
        )
    return from_report(report, arm, half)


def _report_at(source: str | Path) -> Report | None:
    """Return the report in a folder; None where the text is the name of a model."""
    known = str(source) in plugins.variants() or str(source) in plugins.families()
    folder = Path(source)
    if os.path.lexists(folder / FILE) or (os.path.isdir(folder) and not known):
        return Report.load(folder)
    if not known and (os.sep in str(source) or isinstance(source, Path)):
        raise InputError(f"{shown(source)} is neither a report's folder nor a model's name")
    return None


def _names(out: Path) -> tuple[str, str, str, str]:
    """Return the names of the checkpoint, the card and the two lists."""
    if out.suffix not in ENDINGS:
        raise InputError(
            f"{shown(out)} does not say which format to write; end its name in "
            f"{' or '.join(ENDINGS)}"
        )
    return (out.name, f"{out.stem}.md", f"{out.stem}.neurons.csv", f"{out.stem}.neurons.nc")


def _check_places(out: Path, names: tuple[str, ...], overwrite: bool) -> None:
    check_file(out)
    for name in names:
        place = out.parent / name
        check_file(place)
        if os.path.lexists(place) and not overwrite:
            raise InputError(
                f"{shown(place)} is there, and is not overwritten: name another, or give "
                "--overwrite"
            )


def _opened(wanted: Wanted, weights: str | Path | None, out: Path) -> Checkpoint:
    """Return the original's weights; refuse a file that would be replaced.

    Raises:
        InputError: no such file, or the one that is written.
    """
    file = None if weights is None else checked_file(weights)
    with blamed(wanted.adapter):
        found: object = wanted.adapter.checkpoint(wanted.model, file)
    check_kind(f"what {wanted.adapter.name}.checkpoint returned", found, Checkpoint, "a Checkpoint")
    checkpoint = cast(Checkpoint, found)
    if out.exists() and out.samefile(checkpoint.path):
        raise InputError(f"{shown(out)} is the original, which would be lost: name another file")
    if out.suffix == ".safetensors":
        check_types(checkpoint.state)
    return checkpoint


def _precision(wanted: Wanted) -> str:
    """Return the precision in which hashes are taken: that of the report."""
    said = None if wanted.measured is None else wanted.measured.report.provenance.get("dtype")
    return said if said in PRECISIONS else PRECISIONS[0]


def _checked_hash(wanted: Wanted, checkpoint: Checkpoint, dtype: str) -> str:
    """Return the hash of the unmodified weights; refuse others than those of the report."""
    found = weights_sha256(checkpoint.network, dtype=getattr(torch, dtype))
    if wanted.measured is None:
        return found
    said = wanted.measured.report.provenance.get("weights_sha256")
    if found != said:
        raise InputError(
            f"{shown(checkpoint.path)} holds other weights than the report was made with (in "
            f"{dtype}, sha256 {found[:12]} instead of {str(said)[:12]}): give the file that was "
            "used there"
        )
    return found


def _neurons(wanted: Wanted, checkpoint: Checkpoint) -> xr.DataArray:
    if isinstance(wanted.neurons, xr.DataArray):
        return wanted.neurons
    layout = checkpoint.layout
    return read_neurons(wanted.neurons, (layout.num_blocks, layout.neurons_per_block))


def _write(told: Told, folder: Path, names: tuple[str, str, str, str]) -> str:
    """Write all files of an export; return the checkpoint's SHA-256."""
    written: dict[str, str] = {}
    measured = told.wanted.measured
    score = None if measured is None else measured.score
    contents: dict[str, Content] = {
        names[0]: as_file(told.checkpoint, Path(names[0]).suffix, written),
        # written after the checkpoint, whose hash it tells
        names[1]: Streamed(_CARD_BYTES, lambda file: file.write(card(told, written["sha256"]))),
        names[2]: as_csv(told.neurons, score),
        names[3]: as_netcdf(told.neurons, score, dict(_provenance(told))),
    }
    write_results(folder, contents)
    return written["sha256"]


def _provenance(told: Told) -> Iterator[tuple[str, Any]]:
    """Yield what the netCDF list says of where its neurons come from."""
    measured = told.wanted.measured
    yield "model", told.wanted.model if measured is None else measured.report.model
    yield "intervention", called(told.wanted.intervention)
    yield "original", dict(told.checkpoint.facts)
    yield "dtype", told.dtype
    yield "weights_sha256", {"before": told.before, "after": told.after}
    if measured is not None:
        yield "arm", measured.arm.name
        yield "selector", dict(measured.arm.selector or {})
        yield "fraction", measured.arm.fraction
        yield "half", measured.half
