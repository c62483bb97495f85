"""The page: safe and whole, with the counts in words."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from iarmem_plugin.interfaces import QualityValue
from iarmem_plugin.report.page import _drawn, render
from iarmem_plugin.report.report import Report


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def tags_of(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(page)
    return parser.tags


def test_text_from_data_is_escaped_in_the_page(page: str) -> None:
    assert "<script" not in page.lower()
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4


def test_text_from_data_is_escaped_in_a_notebook(report: Report) -> None:
    shown = report._repr_html_()
    assert "<script" not in shown
    assert "member &lt;script&gt;alert(1)&lt;/script&gt;" in shown


def test_the_page_loads_nothing(page: str) -> None:
    for tag, attributes in tags_of(page):
        assert tag not in {"script", "iframe", "object", "embed", "base", "link"}
        for name in ("src", "href", "srcset", "poster", "action"):
            target = attributes.get(name) or "#"
            assert target.startswith(("data:image/png;base64,", "#"))
    styles = "".join(re.findall(r"<style>.*?</style>", page, re.S))
    assert "url(" not in styles
    assert "@import" not in styles
    assert not re.search(r"https?://", page)


def test_every_picture_says_in_words_what_it_shows(page: str) -> None:
    pictures = [attributes for tag, attributes in tags_of(page) if tag == "img"]
    assert len(pictures) == 8 + 4  # figures; picture, target and two completions
    assert all(attributes.get("alt") for attributes in pictures)


def test_the_headline_gives_the_counts_of_the_most_repeated_canaries(page: str) -> None:
    assert (
        "original: 11 of 12 “canary 1360” candidates extracted; highest: 3 of 12; "
        "lowest: 11 of 12; random (3 sets): 9–11 of 12." in page
    )


def test_the_page_tells_paired_changes_and_the_random_control(page: str) -> None:
    # canaries: 2 + 11 before, 1 + 3 after highest, none gained: p = 2 / 2**9 = 0.0039
    assert (
        "highest: over all 24 canaries, 13 were extracted before and 4 after (9 lost, 0 gained; "
        "exact McNemar p = 0.0039). Of 3 random sets at equal fraction, which left 11–12 "
        "extracted, 0 left as few or fewer: p = 0.25, and with 3 sets it cannot be below 0.25."
        in page
    )


def test_the_page_says_which_arms_test_a_half_with_neurons_chosen_on_the_other(
    report: Report, page: str
) -> None:
    assert "are not tested on the same" not in page
    selector = {**(report.arms[1].selector or {}), "cross_fit": {"halves": 2, "seed": 0}}
    arms = (report.arms[0], replace(report.arms[1], selector=selector), *report.arms[2:])
    crossed = render(replace(report, arms=arms), {})
    assert f"In {report.arms[1].name}, the candidates are halved, group by group" in crossed


def test_the_page_says_that_extraction_is_a_lower_bound(page: str) -> None:
    assert "discoverable extraction" in page
    assert "lower bound" in page


def test_the_page_says_how_many_scores_are_not_valid(page: str) -> None:
    assert "5 of 768 entries" in page


_PIXEL = BytesIO()
Image.new("RGB", (1, 1)).save(_PIXEL, "PNG")
DRAWN = dict.fromkeys(("extraction_by_group", "extraction_against_quality"), _PIXEL.getvalue())


def only(report: Report, *names: str) -> Report:
    """Return the report with some of its arms."""
    arms = tuple(arm for arm in report.arms if arm.name in names)
    extraction = report.extraction.sel(arm=list(names))
    return replace(report, arms=arms, extraction=extraction, gallery=(), neurons=None)


def test_the_page_says_what_was_run(report: Report, page: str) -> None:
    assert "after an intervention, beside what random neurons would have done." in page
    alone = render(only(report, "original"), DRAWN)
    assert "how many of them can be extracted.</p>" in alone
    treated = render(only(report, "original", "highest"), DRAWN)
    assert "still be extracted after an intervention.</p>" in treated
    assert "No controls were run" in treated
    assert re.findall("random", alone + treated) == []


def test_a_picture_of_many_arms_stays_on_the_page(report: Report, many: Report) -> None:
    (row,) = report.gallery
    pictures = dict.fromkeys((arm.name for arm in many.arms), row.completions["original"])
    page = render(replace(many, gallery=(replace(row, completions=pictures),)), {})
    classes = [attributes.get("class") or "" for _, attributes in tags_of(page)]
    assert "gallery tiles" in classes
    assert classes.count("extracted") == 40
    columns = [len(re.findall("<th scope=.col", table)) for table in page.split("<table")[1:]]
    assert max(columns) <= 7


def test_what_is_said_of_many_arms_is_folded(many: Report) -> None:
    page = render(many, {})
    head = page.partition("<details>")[0]
    assert (head.count("exact McNemar"), page.count("exact McNemar p")) == (14, 36)
    assert "23 more</summary>" in page


def test_a_measure_without_a_value_has_a_row_and_no_panel(report: Report) -> None:
    left_out = QualityValue("KID (features, left out: only mean and covariance)", None, 512)
    arms = tuple(replace(arm, quality=(*arm.quality, left_out)) for arm in report.arms)
    made = replace(report, arms=arms)
    assert _drawn(made) == _drawn(report)
    assert left_out.label in render(made, {})
