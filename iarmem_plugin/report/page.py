"""The report as one self-contained page: figures, tables, sentences and pictures of results."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from iarmem_plugin.evaluation.counts import (
    ANEW,
    GENERATED,
    RECOGNISABLE,
    canaries,
    canary_word,
    count_extracted,
    having_role,
    outcomes,
    pair_with_original,
)
from iarmem_plugin.report import arm_figures
from iarmem_plugin.report import figures as plots
from iarmem_plugin.report.costs import costs, first_cost
from iarmem_plugin.report.depth.section import depth_section
from iarmem_plugin.report.evidence.evidence import evidence_of
from iarmem_plugin.report.evidence.figure import outcomes_over_band
from iarmem_plugin.report.evidence.section import banded, section, splits
from iarmem_plugin.report.figures import COLUMNS_AT_MOST, DPI
from iarmem_plugin.report.grid.figure import outcomes_against_loss
from iarmem_plugin.report.grid.plan import left_out, plan_rows
from iarmem_plugin.report.membership.section import membership_section
from iarmem_plugin.report.published.beside import published
from iarmem_plugin.report.recovery.figure import recovery_figure
from iarmem_plugin.report.recovery.section import recovery_section
from iarmem_plugin.report.results import ArmResult, GalleryRow, Results
from iarmem_plugin.report.tables import (
    SIDE_BY_SIDE,
    columns,
    control_word,
    findings,
    has_many,
    headline,
    loss_rows,
    outcome_rows,
    quality,
    quality_rows,
    recalibrated_rows,
    turned,
)
from iarmem_plugin.text import shown

CSS_DPI = 96
LONGEST_TEXT = 4000
PLANNED = ("plan", "dropped", "failed")  # of the provenance, shown in a section of their own


def figures(results: Results) -> dict[str, bytes]:
    """Draw all figures of the page.

    Returns:
        name -> PNG; figures without data are left out.
    """
    together, counts = columns(results.arms), count_extracted(results.extraction)
    drawn = {
        "extraction_by_group": arm_figures.extraction_by_group(counts, together),
        "heatmap": plots.heatmap(results.scores),
        "sums_by_block": plots.sums_by_block(results.scores),
        "neurons_by_block": plots.neurons_by_block(results.scores),
        "neurons_sorted": plots.neurons_sorted(results.scores),
        "histogram": plots.histogram(results.scores),
    }
    measured = quality(results).isel(label=_drawn(results))
    if measured.notnull().any():
        shares = count_extracted(results.extraction, canaries(results.extraction))
        drawn["extraction_against_quality"] = arm_figures.extraction_against_quality(
            shares, measured, together
        )
    evidence = evidence_of(results)
    if evidence is not None and banded(evidence):
        ends = {one.name: (one.low, one.high) for one in evidence.treatments}
        drawn["outcomes_against_loss"] = outcomes_over_band(evidence.lines, ends)
    elif (cost := first_cost(results)) is not None:
        drawn["outcomes_against_loss"] = outcomes_against_loss(
            _shares(results), cost.values, results.arms
        )
    if results.recovery is not None:
        drawn["recovery"] = recovery_figure(results.recovery)
    if results.neurons is not None:
        drawn["selected_by_block"] = arm_figures.selected_by_block(
            _one_each(results.neurons, together)
        )
    return {name: plots.png(figure) for name, figure in drawn.items()}


def _one_each(neurons: xr.DataArray, together: Mapping[str, tuple[str, ...]]) -> xr.DataArray:
    """Keep of what is shown as one the first arm, where there are more than stand side by side."""
    if len(together) <= SIDE_BY_SIDE:
        return neurons
    known = set(neurons["arm"].values.astype(str).tolist())
    return neurons.sel(arm=[arms[0] for arms in together.values() if arms[0] in known])


def _shares(results: Results) -> xr.DataArray:
    """Return the share of the canaries with each outcome, dims (outcome, arm)."""
    chosen, judged = canaries(results.extraction), outcomes(results.extraction)
    counts = [count_extracted(results.extraction, chosen, outcome=one) for one in judged]
    shares = [count["extracted"] / count["candidates"] for count in counts]
    return xr.concat(shares, xr.DataArray(list(judged), dims="outcome", name="outcome"))


def _drawn(results: Results) -> list[int]:
    """Return the measures that a figure shows: the change of the held-out loss, then of images."""
    predicted, known = len(costs(results)), quality(results).notnull().any("arm").values
    # of many arms, `outcomes_against_loss` shows it
    first = [0] if first_cost(results) is not None and not has_many(results.arms) else []
    return [one for one in (*first, *range(predicted, len(known))) if known[one]][:4]


def render(results: Results, pictures: Mapping[str, bytes]) -> str:
    """Return the whole page: one file that needs no network, with text from data escaped.

    Args:
        results: what to show.
        pictures: name -> PNG, as `figures` draws them.
    """
    valid, evidence = results.scores["valid"], evidence_of(results)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            **_tables(results),
            report=results,
            evidence=section(results, evidence),
            recovery=recovery_section(results),
            membership=membership_section(results.membership),
            depth=depth_section(results),
            banded=banded(evidence),
            treated=any(arm.role == "treatment" for arm in results.arms[1:]),
            controls=control_word(results.arms),
            figures={name: _plot(picture) for name, picture in pictures.items()},
            findings=list(findings(results, splits(evidence))),
            pairs={
                outcome: pair_with_original(results.extraction, outcome=outcome)
                for outcome in outcomes(results.extraction)
            },
            canary_word=canary_word(results.extraction),
            split=_split(results),
            generated=int(having_role(results.extraction, GENERATED).sum()),
            fixed_anew_on=results.extraction.attrs.get(f"{ANEW}images"),
            invalid=int((~valid.astype(bool)).sum()),
            entries=int(valid.size),
            metric=str(results.scores.attrs["metric"]),
            binned=results.scores.sizes["neuron"] > COLUMNS_AT_MOST,
            gallery=[_gallery_row(row) for row in results.gallery],
            gallery_arms=_gallery_arms(results),
            held_out_loss=first_cost(results) is not None,
            published=published(results),
            settings=list(_flat(dict(results.extraction.attrs))),
            arm_settings=[(arm.name, list(_flat(_settings(arm)))) for arm in results.arms],
            plan=plan_rows(results.provenance),
            left_out=left_out(results.provenance),
            provenance=[
                entry
                for key, value in results.provenance.items()
                if key not in PLANNED
                for entry in _flat(value, str(key))
            ],
        )
    )


def _split(results: Results) -> list[str]:
    """Return the arms that test each half of the candidates with neurons chosen on the other."""
    return [arm.name for arm in results.arms if "cross_fit" in (arm.selector or {})]


def render_summary(results: Results) -> str:
    """Return headline and tables as a fragment of HTML for a notebook."""
    return environment().get_template("summary.html.j2").render(**_tables(results), report=results)


def _tables(results: Results) -> dict[str, Any]:
    counted, measured = outcome_rows(results), quality_rows(results)
    judged = RECOGNISABLE in outcomes(results.extraction)
    recognised = outcome_rows(results, RECOGNISABLE) if judged else ()
    losses = loss_rows(results)
    many, together = has_many(results.arms), columns(results.arms).values()
    sets = {name for names in together if len(names) > 1 for name in names}
    anew = {one: recalibrated_rows(results, one) for one in outcomes(results.extraction)}
    return {
        "headline": headline(results),
        "many": many,
        "sets": control_word(arm for arm in results.arms if arm.name in sets),
        "extraction": turned(counted) if many else counted,
        "recognition": turned(recognised) if many else recognised,
        "recalibrated": {one: turned(rows) if many else rows for one, rows in anew.items() if rows},
        "losses": turned(losses) if many else losses,
        "quality": turned(measured) if many else measured,
    }


def environment() -> Environment:
    """Return what renders the templates of all pages: text from data is escaped, and visible."""
    return Environment(
        loader=PackageLoader("iarmem_plugin.report", "templates"),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _visible(value: object) -> object:
    """Show text from data as text: without what would hide, colour or turn it."""
    return shown(value, LONGEST_TEXT) if type(value) is str else value


def _gallery_arms(results: Results) -> list[str]:
    shown = {name for row in results.gallery for name in row.completions}
    return [arm.name for arm in results.arms if arm.name in shown]


def _gallery_row(row: GalleryRow) -> dict[str, Any]:
    return {
        "path": row.path,
        "group": row.group,
        "target": picture_uri(row.target),
        "original": None if row.original is None else picture_uri(row.original),
        "completions": {
            arm: {"src": picture_uri(picture), "similarity": similarity, "extracted": extracted}
            for arm, (picture, similarity, extracted) in row.completions.items()
        },
    }


def picture_uri(pixels: np.ndarray) -> Markup:
    """Return a picture, uint8, dims (height, width, 3), as a PNG inside a URI."""
    with io.BytesIO() as buffer:
        Image.fromarray(pixels).save(buffer, format="PNG")
        return _data_uri(buffer.getvalue())


def _plot(png: bytes) -> dict[str, Any]:
    with Image.open(io.BytesIO(png)) as image:
        # so that an inch of every figure, and with it its text, is one size on the page
        return {"src": _data_uri(png), "width": round(image.width * CSS_DPI / DPI)}


def _data_uri(png: bytes) -> Markup:
    return Markup("data:image/png;base64,") + base64.b64encode(png).decode("ascii")


def _settings(arm: ArmResult) -> dict[str, Any]:
    if arm.edit is not None:
        return {"edit of the whole model": arm.edit, "neurons edited": "none"}
    return {"intervention": arm.intervention, "selector": arm.selector, "fraction": arm.fraction}


def _flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, entry in value.items():
            yield from _flat(entry, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and len(value) <= 20:
        yield name, ", ".join(map(str, value))
    else:
        yield name, "–" if value is None else str(value)
