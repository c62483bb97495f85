"""The demo uses what it says it uses, and its report can be checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from iarmem_plugin.errors import InputError, UnknownNameError
from iarmem_plugin.interfaces import QualityValue, TunedSampling
from iarmem_plugin.interfaces.organism import Organism
from iarmem_plugin.jobs.arms import select_neurons
from iarmem_plugin.jobs.contrast import CrossFit
from iarmem_plugin.jobs.demo import job as demo
from iarmem_plugin.models.loading import load
from iarmem_plugin.report.report import Report

SMALL = demo.Sizes(
    captured=180,
    members=3,
    held_out=60,
    fitted=40,
    reference=20,
    recalibrated=40,
    free=5,
    generated=120,
    views=2,
)


@pytest.fixture(scope="module")
def organism() -> Organism:
    return demo._organism("var-organism")


@pytest.fixture(scope="module")
def report(organism: Organism) -> Report:
    """Run the first arm alone; the gate runs the whole demo and compares all arms with a golden."""
    chosen = demo.arms()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "arms", lambda *_: chosen)
        return demo._run(organism, "var-organism", SMALL, 0, None)


def test_the_arms_are_the_papers_and_its_controls() -> None:
    arms = demo.arms()
    named = ["highest UnitMem", "most active", "lowest UnitMem", "highest UnitMem, zeroed"]
    assert [arm.name for arm in arms] == [*named, "random 1", "random 2", "random 3"]
    assert [arm.role for arm in arms] == ["treatment"] * 4 + ["control"] * 3
    assert all(arm.fraction == 0.1 for arm in arms)
    edits = [(arm.intervention.name, arm.intervention.parameters) for arm in arms]
    halved, zeroed = ("scale-weights", {"factor": 0.5}), ("zero-weights", {})
    assert edits == [halved] * 3 + [zeroed] + [halved] * 3


def test_what_is_chosen_on_canaries_is_split(report: Report) -> None:
    fitted = CrossFit((report.scores, report.scores), np.array([0, 1], np.int8))
    names = (demo.SPLIT, *demo.CONTRASTS.values())
    arms = demo.arms(0, dict.fromkeys(names, fitted))
    assert [arm.name for arm in arms if arm.scores is fitted] == list(names)
    assert [arm.name for arm in arms][3:6] == list(names)
    assert all(arm.role == "treatment" for arm in arms if arm.scores is fitted)


def test_every_arm_edits_a_tenth_of_the_neurons_and_no_two_random_sets_are_alike(
    report: Report,
) -> None:
    layout = load("var-organism").layout
    chosen = [select_neurons(arm, report.scores, layout).values.ravel() for arm in demo.arms()]
    assert [int(one.sum()) for one in chosen] == [205] * 7
    assert len(np.unique(chosen[4:], axis=0)) == 3
    assert np.array_equal(chosen[0], chosen[3])
    assert report.neurons is not None
    assert np.array_equal(report.neurons.values[1].ravel(), chosen[0])


def test_all_canaries_some_members_and_held_out_pictures_are_candidates(report: Report) -> None:
    counts = report.to_dict()["arms"][0]["extraction"]
    candidates = {group: count["candidates"] for group, count in counts.items()}
    assert candidates == {
        **{f"canary {exposures}": 12 for exposures in (1360, 680)},
        **{f"canary {exposures}": 24 for exposures in (500, 420, 340)},
        "canary 40": 12,
        "member, distinct": 3,
        "member, near-duplicate": 3,
        "member, similar": 3,
        "generated": 5,
        "held-out": 60,
    }


def test_some_members_are_left_to_contrast_with_however_many_are_tried(
    organism: Organism,
) -> None:
    chosen = demo.reported(organism, demo.EVERYTHING)
    members = np.char.startswith(organism.group.astype(str), "member")
    left = organism.group[members & ~chosen]
    assert len(left) == demo.EVERYTHING.reference == 108
    assert "member, distinct" not in left
    assert chosen.sum() == 108 + (96 + 283 + 231 - 108) + 300


def test_the_original_gives_back_what_was_shown_most(report: Report) -> None:
    counts = report.to_dict()["arms"][0]["extraction"]
    assert counts["canary 1360"]["extracted"] >= 10
    assert counts["canary 40"]["extracted"] <= 2
    assert counts["held-out"]["extracted"] <= 3


def test_what_was_shown_most_is_recognisable_and_the_threshold_says_whence(report: Report) -> None:
    found = report.extraction
    assert found.attrs["recognition_threshold_source"].startswith(
        "held-out pictures that are not reported, unmodified model: at most 1% of n=300"
    )
    original, edited, twin = (arm["recognition"] for arm in report.to_dict()["arms"])
    assert original["canary 1360"]["recognisable"] == 12
    assert edited["canary 1360"]["agreement"] < original["canary 1360"]["agreement"]
    assert original["held-out"]["recognisable"] <= 3
    assert twin["canary 1360"]["recognisable"] <= 1


def test_the_twin_is_the_last_arm_and_never_saw_the_canaries(report: Report) -> None:
    twin = report.arms[-1]
    assert (twin.name, twin.role, twin.intervention) == ("twin", "twin", None)
    assert report.provenance["twin"]["model"] == "var-organism-twin"
    counts = report.to_dict()["arms"][-1]["extraction"]
    assert counts["canary 1360"]["extracted"] <= 1


def test_the_held_out_loss_of_every_arm_is_read_at_its_own_temperature(report: Report) -> None:
    original, edited, twin = report.to_dict()["arms"]
    assert original["losses"]["held-out"]["change"] == 0
    seen, unseen = (arm["losses"]["canary 1360"]["loss"] for arm in (original, twin))
    assert seen < unseen / 2
    assert edited["temperature"] != original["temperature"]
    low, high = (edited["losses"]["held-out"][end] for end in ("low", "high"))
    assert low < edited["losses"]["held-out"]["change"] < high
    assert report.provenance["losses"]["fitted on"]["images"] == 40


def test_images_are_generated_in_the_original_the_papers_arm_and_the_twin(
    report: Report, organism: Organism
) -> None:
    assert [len(arm.quality) for arm in report.arms] == [8, 8, 8]
    protocol = demo._quality(load("var-organism"), organism, SMALL, 0)
    assert protocol.arms == {"original", "highest UnitMem", "twin"}
    everything = demo._quality(load("var-organism"), organism, replace(SMALL, everywhere=True), 0)
    assert everything.arms is None


def test_quality_names_its_whole_protocol_and_both_references(report: Report) -> None:
    labels = [value.label for value in report.arms[0].quality]
    assert labels[0] == (
        "FID (emoji classifier, reference held-out pictures, which no network has seen n=300, "
        "generated n=120), temperature 0.6, one seed"
    )
    assert "no canaries, near-duplicates of which the classifier has seen n=610" in labels[2]
    assert len({arm.quality[0].value for arm in report.arms}) == 3


def test_thresholds_are_fixed_anew_beside_the_shared_ones(report: Report) -> None:
    arms = report.to_dict()["arms"]
    assert [arm["recalibrated"]["images"] for arm in arms] == [40] * 3
    counts = [arm["recalibrated"]["recognition"]["counts"]["canary 1360"] for arm in arms]
    assert counts[0]["recognisable"] == 12
    assert counts[2]["recognisable"] <= 2
    assert report.provenance["free generations"]["images"] == 5


def test_two_floors_of_real_pictures_are_measured_in_as_many_as_an_arm_generates(
    report: Report,
) -> None:
    beside, halves = report.floors
    assert beside == ("calibration pictures against held-out pictures, which no network has seen")
    assert halves.startswith("members that are no canaries")
    assert [value.n for values in report.floors.values() for value in values] == [120] * 4
    for floor, own in zip(report.floors.values(), (slice(4, 6), slice(6, 8)), strict=True):
        for arm in report.arms:
            for real, value in zip(floor, arm.quality[own], strict=True):
                assert value.label == f"{real.label}, temperature 0.6, one seed"
                assert value.value is not None
                assert real.value is not None
                assert bool(value.mark) == (value.value < real.value)


def test_the_sampler_is_the_recorded_one_or_in_full_sought_and_drawn_three_times(
    report: Report, organism: Organism, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert organism.sampler is not None
    assert report.provenance["generation"]["tuned"] == organism.sampler.provenance
    found = TunedSampling({0.8: QualityValue("KID", 0.1, 120)})
    monkeypatch.setattr(demo, "tune_sampling", lambda *_, **__: found)
    assert (demo.EVERYTHING.seeds, demo.EVERYTHING.tuned) == (3, True)
    sizes = replace(SMALL, seeds=3, tuned=True)
    protocol = demo._quality(load("var-organism"), organism, sizes, 7)
    assert [one.seed for one in protocol.samplings] == [7, 8, 9]
    assert protocol.sampling.temperature == 0.8
    assert protocol.sampled == "temperature 0.8, mean of 3 seeds"


def test_sizes_costs_and_seeds_are_in_the_provenance(report: Report) -> None:
    assert report.provenance["sizes"]["captured"] == 180
    assert report.provenance["cost"]["cpu_seconds"] > 0
    assert report.provenance["scores"]["images"] == 180
    assert json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.slow
def test_the_rar_organism_gives_its_report_too(monkeypatch: pytest.MonkeyPatch) -> None:
    arms = demo.arms()
    monkeypatch.setattr(demo, "arms", lambda *_: [arms[0]])
    sizes = replace(SMALL, generated=100, views=1)
    report = demo._run(demo._organism("rar-organism"), "rar-organism", sizes, 0, None)
    original, edited, _ = report.to_dict()["arms"]
    assert original["extraction"]["canary 1360"]["extracted"] >= 10
    # at the last token it does no better than random neurons, but some tokens are lost
    before, after = (arm["recognition"]["canary 1360"]["agreement"] for arm in (original, edited))
    assert after < before
    assert report.scores is not None
    assert report.scores.coords["scale_name"].values.tolist() == ["last token"]


def test_captured_pictures_are_members_with_all_canaries(organism: Organism) -> None:
    captured = demo.captured_pictures(organism, 384)
    assert len(captured) == 384
    assert (organism.exposures[captured.ids] > 0).all()
    canaries = np.flatnonzero(np.char.startswith(organism.group.astype(str), "canary"))
    assert np.isin(canaries, captured.ids).all()


def test_a_report_is_written_and_the_threads_come_back(
    tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_run", lambda *_: report)
    torch.set_num_threads(2)
    try:
        demo.demo(tmp_path / "out")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["arms"][0]["name"] == "original"
    extraction = xr.load_dataset(tmp_path / "out" / "extraction.nc", engine="h5netcdf")
    assert extraction.sizes["arm"] == 3


def test_a_model_that_is_not_an_organism_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not an organism.*var-organism"):
        demo.demo(tmp_path / "out", model="var-d16")
    with pytest.raises(InputError, match=r"var-organism-twin is the twin of one.*var-organism$"):
        demo.demo(tmp_path / "out", model="var-organism-twin")
    with pytest.raises(UnknownNameError):
        demo.demo(tmp_path / "out", model="var-d17")
    assert not (tmp_path / "out").exists()
