"""Whatever groups, arms, bands, pictures and metrics are called, a report shows it as text."""

from __future__ import annotations

import html
from dataclasses import replace
from html.parser import HTMLParser

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from iarmem_plugin.report.figures import heatmap, png
from iarmem_plugin.report.page import figures, render, render_summary
from iarmem_plugin.report.report import Report
from iarmem_plugin.text import shown

HOSTILE = "[/a]<script>$\\frac{</script>\x1b[31m\u202e\udcff\x00\n"
NAMES = st.text(st.characters(), min_size=1, max_size=30)
FEW = settings(
    max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


class Texts(HTMLParser):
    """The text of a page, and the tags in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags = "", set[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def named(report: Report, name: str) -> Report:
    """Return the report with a name in every place that others fill."""
    names = [arm.name if place == 0 else f"{name}{place}" for place, arm in enumerate(report.arms)]
    groups = [f"{name}{group}" for group in report.extraction["group"].values]
    paths = [f"{name}/{path}" for path in range(report.extraction.sizes["candidate"])]
    (row,) = report.gallery
    shown_as = dict(zip(names, row.completions.values(), strict=False))
    assert report.neurons is not None
    scores = report.scores.assign_coords(scale_name=("scale", [f"{name}{n}" for n in range(6)]))
    return replace(
        report,
        model=name,
        provenance={name: name},
        scores=scores.assign_attrs(metric=name),
        arms=tuple(replace(arm, name=own) for arm, own in zip(report.arms, names, strict=True)),
        extraction=report.extraction.assign_coords(
            arm=names, group=("candidate", groups), path=("candidate", paths)
        ),
        gallery=(replace(row, path=name, group=name, completions=shown_as),),
        neurons=report.neurons.assign_coords(arm=names[1:]),
    )


@FEW
@given(NAMES)
@example(HOSTILE)
@example("x" * 5_000)
def test_any_name_is_text_on_the_page(report: Report, name: str) -> None:
    page = render(named(report, name), {})
    assert page.encode("utf-8")
    read = Texts(page)
    assert read.tags == Texts(render(report, {})).tags
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert shown(name, 4000) in read.text
    assert html.escape(shown(name, 4000), quote=False) in page or "'" in name or '"' in name
    assert render_summary(named(report, name)).encode("utf-8")


@FEW
@given(NAMES)
@example(HOSTILE)
def test_any_name_is_text_in_the_table(report: Report, name: str) -> None:
    printed = str(named(report, name).table())
    assert printed.encode("utf-8")
    assert "\x1b" not in printed


def test_a_hostile_name_is_drawn_in_every_figure(report: Report) -> None:
    assert len(figures(named(report, HOSTILE))) == 8


@FEW
@given(NAMES)
@example(HOSTILE)
def test_any_name_is_drawn_in_a_heatmap(report: Report, name: str) -> None:
    png(heatmap(named(report, name).scores))
