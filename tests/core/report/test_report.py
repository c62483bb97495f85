"""The report: counts that can be recomputed, a page that is safe and whole, all or nothing."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.candidates import role_of
from iarmem_plugin.evaluation.counts import canaries, count_extracted
from iarmem_plugin.interfaces import QualityValue
from iarmem_plugin.report import figures as plots
from iarmem_plugin.report.report import Report, check_output_folder
from iarmem_plugin.report.results import ArmResult, ArmRole, GalleryRow

HOSTILE = "<script>alert(1)</script>"
SCHEMA_FILE = Path(__file__).parents[3] / "docs" / "report.schema.json"
GROUPS = ["canary x1"] * 12 + ["held-out"] * 20 + ["canary x64"] * 12 + [f"member {HOSTILE}"] * 15
# how many of each group an arm extracts, in the order of `GROUPS`
EXTRACTED = {
    "original": (2, 0, 11, 3),
    "highest": (1, 0, 3, 1),
    "lowest": (2, 1, 11, 3),
    "random 1": (2, 0, 9, 3),
    "random 2": (1, 0, 11, 2),
    "random 3": (2, 0, 10, 3),
}
LABEL = "FID (emoji classifier, reference training pictures n=1606, generated n=512)"


def make_scores() -> xr.Dataset:
    score = np.random.default_rng(0).random((4, 6, 32)).astype("float32")
    valid = np.ones(score.shape, dtype=bool)
    valid[0, 0, :5] = False
    score[0, 0, 0] = np.nan
    return xr.Dataset(
        {"score": (("block", "scale", "neuron"), score)},
        coords={
            "block": range(4),
            "scale": range(6),
            "neuron": range(32),
            "scale_name": ("scale", [str(scale) for scale in range(6)]),
            "valid": (("block", "scale", "neuron"), valid),
        },
        attrs={"metric": "unitmem", "settings": {"views": 10}, "nothing": None, "whole": True},
    )


def make_extraction() -> xr.Dataset:
    candidates = len(GROUPS)
    extracted = np.zeros((len(EXTRACTED), candidates), dtype=bool)
    starts = (0, 12, 32, 44)
    for row, counts in zip(extracted, EXTRACTED.values(), strict=True):
        for start, count in zip(starts, counts, strict=True):
            row[start : start + count] = True
    return xr.Dataset(
        {
            "similarity": (("arm", "candidate"), np.where(extracted, 0.97, 0.4).astype("float32")),
            "equal_tokens": (("arm", "candidate"), np.full(extracted.shape, 14, dtype="int32")),
            "extracted": (("arm", "candidate"), extracted),
            "tokens": (("arm", "candidate", "token"), np.zeros((*extracted.shape, 8), "int32")),
        },
        coords={
            "arm": list(EXTRACTED),
            "group": ("candidate", GROUPS),
            "role": ("candidate", [role_of(name) for name in GROUPS]),
            "path": ("candidate", [f"{HOSTILE}/{n}.png" for n in range(candidates)]),
            "label": ("candidate", np.zeros(candidates, dtype="int32")),
            "image": ("candidate", np.arange(candidates)),
        },
        attrs={
            "threshold": 0.9,
            "threshold_source": "half of the held-out pictures",
            "similarity": "correlation",
            "prefix_tokens": 14,
        },
    )


def make_arm(name: str, value: float | None) -> ArmResult:
    quality = (QualityValue(LABEL, value, 512),)
    if name == "original":
        return ArmResult(name, None, None, None, quality, "original")
    kind, _, seed = name.partition(" ")
    selector = {"name": kind, "pool": "model", "seed": int(seed or 0)}
    intervention = {"name": "scale-weights", "factor": 0.5, "backend": "nnsight"}
    role: ArmRole = "control" if kind == "random" else "treatment"
    return ArmResult(name, intervention, selector, 0.1, quality, role)


def make_report() -> Report:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    shown = {"original": (pixels, 0.97, True), "highest": (255 - pixels, 0.4, False)}
    neurons = np.zeros((len(EXTRACTED) - 1, 4, 32), dtype=bool)
    neurons[:, 1, :13] = True
    return Report(
        model="var-organism",
        provenance={"seed": 0, "note": HOSTILE, "loss": float("nan"), "versions": {"torch": "2"}},
        scores=make_scores(),
        arms=tuple(make_arm(name, 10.0 + place) for place, name in enumerate(EXTRACTED)),
        extraction=make_extraction(),
        gallery=(GalleryRow(f"{HOSTILE}/0.png", "canary x64", pixels, pixels, shown),),
        neurons=xr.DataArray(
            neurons, dims=("arm", "block", "neuron"), coords={"arm": list(EXTRACTED)[1:]}
        ),
    )


@pytest.fixture(scope="module")
def report() -> Report:
    return make_report()


@pytest.fixture(scope="module")
def folder(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.save(tmp_path_factory.mktemp("reports") / "report")


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


def test_report_json_fits_the_published_schema(folder: Path) -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((folder / "report.json").read_text()), schema)


@pytest.mark.parametrize(
    "damage",
    [
        {"schema": 2},
        {"arms": []},
        {"scores": {"metric": "unitmem"}},
        {"more": 1},
    ],
)
def test_the_schema_refuses_what_is_no_report(report: Report, damage: dict[str, object]) -> None:
    schema = json.loads(SCHEMA_FILE.read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**report.to_dict(), **damage}, schema)


def test_the_first_arm_is_the_original_without_settings(report: Report) -> None:
    first = report.to_dict()["arms"][0]
    assert first["name"] == "original"
    assert [first["intervention"], first["selector"], first["fraction"]] == [None] * 3


def test_counts_and_wilson_intervals_are_those_worked_by_hand(report: Report) -> None:
    # 11 of 12: p = 11/12, z = 1.959964, z2 = 3.841459
    # centre (p + z2/24) / (1 + z2/12) = 1.0767275/1.3201216 = 0.8156275
    # half z sqrt(p(1-p)/12 + z2/576) / 1.3201216 = 1.959964*0.1141707/1.3201216 = 0.1695072
    counted = report.to_dict()["arms"][0]["extraction"]["canary x64"]
    assert (counted["extracted"], counted["candidates"]) == (11, 12)
    assert counted["low"] == pytest.approx(0.6461203, abs=1e-6)
    assert counted["high"] == pytest.approx(0.9851347, abs=1e-6)


def test_every_count_can_be_recomputed_from_the_extraction_file(folder: Path) -> None:
    stored = json.loads((folder / "report.json").read_text())
    with xr.open_dataset(folder / "extraction.nc", engine="h5netcdf") as extraction:
        extracted, group = extraction["extracted"].values, extraction["group"].values
        arms = [str(name) for name in extraction["arm"].values]
        above = (extraction["similarity"] > extraction.attrs["threshold"]).values
    assert np.array_equal(extracted, above)
    for arm in stored["arms"]:
        row = extracted[arms.index(arm["name"])]
        recomputed = {
            str(name): (int(row[group == name].sum()), int((group == name).sum()))
            for name in np.unique(group)
        }
        written = {
            name: (counts["extracted"], counts["candidates"])
            for name, counts in arm["extraction"].items()
        }
        assert recomputed == written


def test_groups_run_from_most_repeats_to_held_out(report: Report) -> None:
    found = list(report.to_dict()["arms"][0]["extraction"])
    assert found == ["canary x64", "canary x1", f"member {HOSTILE}", "held-out"]


def test_block_sums_leave_out_what_is_not_valid(report: Report) -> None:
    table = np.array(report.to_dict()["scores"]["by_block_and_scale"])
    score = report.scores["score"].values.astype("float64")
    assert table.shape == (4, 6)
    assert table[0, 0] == pytest.approx(score[0, 0, 5:].sum(), rel=1e-12)
    assert table[3, 2] == pytest.approx(score[3, 2].sum(), rel=1e-12)


def test_what_is_not_a_number_is_null(report: Report) -> None:
    arms = (*report.arms[:-1], make_arm("random 3", float("nan")))
    written = replace(report, arms=arms).to_dict()
    assert written["arms"][-1]["quality"][0]["value"] is None
    assert written["provenance"]["loss"] is None
    json.dumps(written, allow_nan=False)


def test_arms_of_another_order_than_the_extraction_are_refused(report: Report) -> None:
    with pytest.raises(InputError, match="'original' first"):
        replace(report, arms=report.arms[::-1])


def test_the_folder_holds_every_file(folder: Path) -> None:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    drawn = {
        "extraction_by_group", "extraction_against_quality", "heatmap", "neurons_by_block",
        "histogram", "selected_by_block",
    }  # fmt: skip
    files = {"report.json", "report.html"}
    files |= {"extraction.nc", "scores.nc", "neurons.nc", "gallery.nc"}
    assert found == files | {f"figures/{name}.png" for name in drawn}


def test_scores_and_neurons_come_back_from_their_files(report: Report, folder: Path) -> None:
    with xr.open_dataset(folder / "scores.nc", engine="h5netcdf") as scores:
        xr.testing.assert_equal(scores["score"], report.scores["score"])
        assert scores["valid"].dtype == bool
        assert json.loads(scores.attrs["settings"]) == {"views": 10}
    with xr.open_dataset(folder / "neurons.nc", engine="h5netcdf") as neurons:
        assert report.neurons is not None
        assert np.array_equal(neurons["neurons"].values, report.neurons.values)


def test_a_failing_figure_leaves_nothing_behind(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(figure: object) -> bytes:
        raise RuntimeError("no ink")

    monkeypatch.setattr(plots, "png", fail)
    with pytest.raises(RuntimeError, match="no ink"):
        report.save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_file_leaves_the_earlier_report_as_it_was(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = report.save(tmp_path / "out")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", fail)
    with pytest.raises(OSError, match="disk full"):
        report.save(out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == [out]


def test_an_interrupted_save_leaves_the_earlier_report_as_it_was(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = report.save(tmp_path / "out")
    (out / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        report.save(out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == [out]


def test_an_earlier_report_is_replaced_and_other_files_stay(report: Report, tmp_path: Path) -> None:
    out = report.save(tmp_path / "out")
    (out / "notes.txt").write_text("mine")
    replace(report, model="var-d16", neurons=None).save(out)
    assert json.loads((out / "report.json").read_text())["model"] == "var-d16"
    assert not (out / "neurons.nc").exists()
    assert not (out / "figures" / "selected_by_block.png").exists()
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("content", ['{"schema": 1}', "[]", "no json", None])
def test_a_folder_that_is_not_ours_is_refused(
    report: Report, tmp_path: Path, content: str | None
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="not overwritten"):
        report.save(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="not overwritten"):
        check_output_folder(tmp_path / "out")


def test_an_empty_folder_is_used(report: Report, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert (report.save(tmp_path / "out") / "report.json").exists()


def test_the_folder_can_be_read_by_whom_any_new_folder_can(report: Report, tmp_path: Path) -> None:
    (tmp_path / "usual").mkdir()
    out = report.save(tmp_path / "out")
    assert out.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_text_from_data_is_escaped_in_the_page(page: str) -> None:
    assert "<script" not in page.lower()
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4


def test_text_from_data_is_escaped_in_a_notebook(report: Report) -> None:
    shown = report._repr_html_()
    assert "<script" not in shown
    assert f"member {HOSTILE}".replace("<", "&lt;").replace(">", "&gt;") in shown


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
    assert len(pictures) == 6 + 4  # figures; picture, target and two completions
    assert all(attributes.get("alt") for attributes in pictures)


def test_the_headline_gives_the_counts_of_the_most_repeated_canaries(page: str) -> None:
    assert (
        "original: 11 of 12 “canary x64” candidates extracted; highest: 3 of 12; "
        "lowest: 11 of 12; random (3 sets): 9–11 of 12." in page
    )


def test_the_page_tells_paired_changes_and_the_random_control(page: str) -> None:
    # canaries: 2 + 11 before, 1 + 3 after highest, none gained: p = 2 / 2**9 = 0.0039
    assert (
        "highest: over all 24 canaries, 13 were extracted before and 4 after (9 lost, 0 gained; "
        "exact McNemar p = 0.0039). Of 3 random sets, which left 11–12 extracted, 0 left as few or "
        "fewer: p = 0.25, and with 3 sets it cannot be below 0.25." in page
    )


def test_the_page_says_that_extraction_is_a_lower_bound(page: str) -> None:
    assert "discoverable extraction" in page
    assert "lower bound" in page


def test_the_page_says_how_many_scores_are_not_valid(page: str) -> None:
    assert "5 of 768 entries" in page


def test_a_report_without_quality_pictures_and_neurons_can_be_saved(
    report: Report, tmp_path: Path
) -> None:
    arms = tuple(replace(arm, quality=()) for arm in report.arms)
    bare = replace(report, arms=arms, gallery=(), neurons=None)
    out = bare.save(tmp_path / "bare")
    assert "Image quality was not measured" in (out / "report.html").read_text()
    assert not (out / "figures" / "extraction_against_quality.png").exists()


def test_candidates_without_canaries_are_paired_over_all_but_held_out(report: Report) -> None:
    groups = [group.replace("canary", "rank") for group in GROUPS]
    roles = [role_of(group) for group in groups]
    extraction = report.extraction.assign_coords(
        group=("candidate", groups), role=("candidate", roles)
    )
    shown = replace(report, extraction=extraction)
    assert set(shown.to_dict()["arms"][0]["extraction"]) == set(groups)
    assert int(count_extracted(extraction, canaries(extraction))["candidates"][0]) == 39


def test_the_terminal_table_gives_counts_ranges_and_quality(report: Report) -> None:
    console = Console(file=io.StringIO(), width=160, record=True)
    console.print(report.table())
    text = console.export_text()
    assert "11/12" in text
    assert "9–11/12" in text
    assert "13–15" in text
    assert "FID (emoji classifier" in text


def test_markup_in_names_is_printed_and_not_obeyed(report: Report) -> None:
    groups = [group.replace("member", "[red]") for group in GROUPS]
    extraction = report.extraction.assign_coords(group=("candidate", groups))
    console = Console(file=io.StringIO(), width=160, record=True)
    console.print(replace(report, extraction=extraction).table())
    assert "[red]" in console.export_text()
