"""Evidence of made-up comparisons, held against numbers worked by hand."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.evidence.equal import EqualQuality
from iarmem_plugin.jobs.export import card
from iarmem_plugin.jobs.export.wanted import Measured
from iarmem_plugin.report.evidence.evidence import Cell, Evidence, evidence_of
from iarmem_plugin.report.evidence.lines import stripped
from iarmem_plugin.report.evidence.section import splits
from iarmem_plugin.report.evidence.sentences import (
    cell_rows,
    declared_sentence,
    primary_sentence,
    reading_sentence,
)
from iarmem_plugin.report.page import figures, render
from iarmem_plugin.report.report import Report
from iarmem_plugin.report.tables import findings

from .studies import Study, expected

ROOT = Path(__file__).parents[4]
HOSTILE = "<script>alert(1)</script>"
HIGHEST = {"name": "highest", "pool": "model", "scales": "mean", "by": "score", "seed": 0}


def made(report: Report) -> Evidence:
    found = evidence_of(report)
    assert found is not None
    return found


def cell(
    evidence: Evidence, name: str, at: str = "equal quality", *, against: str = "random"
) -> Cell:
    (found,) = (
        one
        for one in evidence.cells
        if (one.treatment, one.outcome, one.against) == (name, "agreement", against)
        and one.at == "equal quality"
    )
    return found


@pytest.fixture(scope="module")
def kept() -> Report:
    """Nineteen random curves, and an edit that leaves fewer tokens right than any at its cost."""
    study = Study()
    study.add("UnitMem", HIGHEST, 0.1, 0.5, 0.15)
    study.random(19)
    return study.report([expected("UnitMem")])


def test_a_treatment_is_read_where_random_curves_cost_as_much(kept: Report) -> None:
    found = cell(made(kept), "UnitMem").found
    # at 0.15, seed s is between its two points: about 0.9 - 0.75 (0.5 - s/100); mean over s 0.6
    assert found.sets == 19
    assert found.value == pytest.approx(0.5)
    assert found.controls == pytest.approx(0.6, abs=0.01)  # tokens are whole
    assert found.effect == pytest.approx(found.value - found.controls)
    assert found.as_good == 0


def test_what_was_not_declared_has_no_p(kept: Report) -> None:
    document = kept.to_dict()["evidence"]
    assert not {"p", "p_low", "adjusted", "paired_p"} & set().union(*document["cells"])
    assert document["hypotheses"][0]["p"] == 1 / 20


def test_a_primary_hypothesis_that_is_kept_is_said_first(kept: Report) -> None:
    evidence = made(kept)
    (one,) = evidence.hypotheses
    assert (one.verdict, one.p, one.adjusted) == ("kept", 0.05, 0.05)
    sentence = str(primary_sentence(evidence))
    assert sentence.startswith("Primary hypothesis: UnitMem leaves less of the completed tokens")
    assert "Kept (p = 0.05, α = 0.05): 50.0% over 10 candidates" in sentence
    assert "0 of 19 were as low or lower" in sentence
    page = render(kept, {})
    assert page.index(sentence[:40]) < page.index('id="extraction"')
    assert sentence[:60] in " ".join(str(kept.table()).split())


def test_the_card_of_an_exported_arm_says_what_its_hypothesis_came_to(kept: Report) -> None:
    arms = {one.name: one for one in kept.arms}
    (said,) = card.tested_at_equal_quality(Measured(kept, arms["UnitMem"]))
    assert "over all candidates: Primary hypothesis: UnitMem" in said
    assert card.tested_at_equal_quality(Measured(kept, kept.arms[0])) == ()


def test_an_expectation_that_does_not_come_true_is_broken() -> None:
    study = Study()
    study.add("UnitMem", HIGHEST, 0.1, 0.6, 0.15)
    study.random(19)
    evidence = made(study.report([expected("UnitMem")]))
    assert evidence.hypotheses[0].verdict == "broken"
    assert evidence.hypotheses[0].p > 0.3
    assert "does not show that there is none" in str(primary_sentence(evidence))


def test_curves_that_end_before_are_not_comparable() -> None:
    study = Study()
    study.add("UnitMem", HIGHEST, 0.4, 0.1, 0.25)
    study.random(19)
    report = study.report([expected("UnitMem")])
    (one,) = made(report).hypotheses
    assert (one.verdict, one.why) == (
        "not comparable",
        "19 of 19 random curves end before this ΔNLL",
    )
    assert "p" not in report.to_dict()["evidence"]["hypotheses"][0]
    assert "19 of 19 curves end before" in render(report, {})


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        (expected("lost"), "no arm of the report is the one that was declared"),
        (expected("UnitMem", outcome="recognisable"), "recognisable was not measured"),
        (expected("UnitMem", against="random-matched"), "no curve of it was run"),
        (expected("UnitMem", against="gone"), "no curve of it was run"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_what_cannot_be_compared_says_why(declared: dict[str, str], why: str) -> None:
    study = Study()
    study.add("UnitMem", HIGHEST, 0.1, 0.5, 0.15)
    study.random(3)
    (one,) = made(study.report([declared])).hypotheses
    assert one.verdict == "not comparable"
    assert one.why.startswith(why)


def test_too_few_sets_decide_nothing() -> None:
    study = Study()
    study.add("UnitMem", HIGHEST, 0.1, 0.5, 0.15)
    study.random(5)
    (one,) = made(study.report([expected("UnitMem")])).hypotheses
    assert (one.verdict, one.p) == ("not comparable", 1 / 6)
    assert "R = 19 or more sets are needed" in one.limit


def test_a_family_is_corrected_by_holm() -> None:
    study = Study()
    study.add("UnitMem", HIGHEST, 0.1, 0.5, 0.15)
    study.add("most active", HIGHEST | {"by": "mean_activation"}, 0.1, 0.5, 0.15)
    study.random(39)
    both = [expected(name, family="two") for name in ("UnitMem", "most active")]
    found = made(study.report(both)).hypotheses
    assert [(one.p, one.adjusted) for one in found] == [(1 / 40, 0.05)] * 2
    assert [one.verdict for one in found] == ["kept", "kept"]


def test_without_a_family_an_interval_decides_and_there_is_no_p() -> None:
    study = Study()
    study.add("UnitMem", HIGHEST, 0.1, 0.5, 0.15)
    study.random(3)
    report = study.report([expected("UnitMem", family=None)])
    (one,) = made(report).hypotheses
    assert one.verdict == "kept"
    assert "p" not in report.to_dict()["evidence"]["hypotheses"][0]


def test_splits_are_one_treatment_and_their_mean() -> None:
    study = Study()
    for split, (right, cost) in enumerate([(0.5, 0.1), (0.4, 0.2)]):
        selector = HIGHEST | {
            "scores": "gradient-weight",
            "scored_on": [{"images": split}],
            "cross_fit": {"halves": 2, "seed": split},
        }
        study.add(f"contrast{', split 2' * split}", selector, 0.1, right, cost)
    study.random(3)
    evidence = made(study.report([expected("contrast")]))
    (treatment,) = evidence.treatments
    assert treatment.arms == ("contrast", "contrast, split 2")
    assert treatment.change == pytest.approx(0.15)
    assert treatment.chosen_on_tested is False
    assert cell(evidence, "contrast").found.value == pytest.approx(0.45)


def test_neurons_chosen_on_what_is_tested_are_marked() -> None:
    study = Study()
    study.add("UnitMem", HIGHEST, 0.1, 0.5, 0.15)
    study.random(3)
    report = study.report(captured=True)
    assert made(report).treatments[0].chosen_on_tested is True
    assert "UnitMem †" in render(report, {})


def test_matched_sets_stand_beside_uniform_ones_and_only_for_what_they_match() -> None:
    study = Study()
    study.add("UnitMem", HIGHEST, 0.1, 0.5, 0.15)
    study.add("most active", HIGHEST | {"by": "mean_activation"}, 0.1, 0.5, 0.15)
    study.random(3)
    study.random(2, kind="random-matched", to="highest", bins=20, pool="model")
    evidence = made(study.report())
    assert cell(evidence, "UnitMem", against="random-matched").found.sets == 2
    assert {one.against for one in evidence.cells if one.treatment == "most active"} == {"random"}


def test_more_sets_at_two_fractions_are_read_between_these_alone() -> None:
    study = Study()
    study.add("within", HIGHEST, 0.1, 0.5, 0.15)
    study.add("before", HIGHEST | {"by": "mean_activation"}, 0.1, 0.8, 0.03)
    study.random(9)
    for seed in range(1, 4):
        drawn = {"name": "random", "seed": seed}
        study.add(f"random {seed}, 5%", drawn, 0.05, 0.8, 0.05, "control")
    evidence = made(study.report())
    assert [cell(evidence, name).found.sets for name in ("within", "before")] == [9, 3]


def test_what_only_harms_must_read_as_worse() -> None:
    study = Study()
    study.add("lowest", HIGHEST | {"name": "lowest"}, 0.1, 0.9, 0.05)
    study.add("active", HIGHEST | {"by": "mean_activation"}, 0.1, 0.9, -0.01)
    study.random(3)
    found = {one.what.partition(",")[0]: one.passed for one in made(study.report()).checks}
    assert found == {"the lowest-scored 10%": True, "the most active 10%": False}
    page = render(study.report(), {})
    assert "1 of them alone cost 0 or less" in page
    assert "Not run here: 40% at random, halved; the loss on members that are no canaries." in page


def test_it_is_told_what_curves_are_read_from() -> None:
    study = Study()
    study.add("UnitMem", HIGHEST, 0.1, 0.5, 0.15)
    for seed, (few, many) in enumerate([(0.1, 0.1), (0.2, 0.2), (-0.1, 0.3)], start=1):
        for fraction, right, cost in ((0.2, 0.8, few), (0.4, 0.7, many), (1.0, 0.1, 0.5)):
            drawn = {"name": "random", "seed": seed}
            study.add(f"random {seed}, {fraction}", drawn, fraction, right, cost, "control")
    evidence = made(study.report([expected("UnitMem")]))
    found = evidence.hypotheses[0].found
    assert isinstance(found, EqualQuality)
    assert (found.from_original, found.to_all, found.raised) == (1, 1, 1)
    said = reading_sentence(evidence)
    assert "1 are read between the unmodified model and their smallest set, and 1 between" in said
    assert "1 are read from a set that costs less than a smaller one" in said


def test_all_neurons_are_one_edit_and_no_treatment_of_the_page() -> None:
    study = Study()
    study.add("UnitMem", HIGHEST, 0.1, 0.5, 0.15)
    study.add("everything", HIGHEST, 1.0, 0.1, 0.2)
    study.random(3)
    evidence = made(study.report())
    assert [row.name for row in cell_rows(evidence, "equal quality", "random")] == ["UnitMem"]
    assert "Treatments of 100% are left out" in render(study.report(), {})
    assert cell(evidence, "everything").found.value == pytest.approx(0.1)


def test_the_lead_tells_splits_once_and_no_p_against_random_sets() -> None:
    study = Study()
    for split in range(2):
        selector = HIGHEST | {
            "scores": "gradient-weight",
            "scored_on": [{"images": split}],
            "cross_fit": {"halves": 2, "seed": split},
        }
        study.add(f"contrast{', split 2' * split}", selector, 0.1, 0.5, 0.15)
    study.random(3)
    report = study.report()
    told = list(findings(report, splits(made(report))))
    assert told[0].startswith("contrast (split 1 of 2): over all 10 canaries")
    assert told[1] == "Whether random neurons that cost as much do as well is told below."
    assert "it cannot be below 0.25" not in " ".join(told)
    assert "it cannot be below 0.25" in " ".join(findings(report))


def test_a_report_without_curves_or_expectations_has_no_evidence() -> None:
    study = Study()
    study.add("UnitMem", HIGHEST, 0.1, 0.5, 0.15)
    study.add("random 1", {"name": "random", "seed": 1}, 0.1, 0.8, 0.1, "control")
    report = study.report()
    assert evidence_of(report) is None
    assert "evidence" not in report.to_dict()
    assert "Is it the neurons?" not in render(report, {})


def test_an_expectation_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="against of an expectation is ' '"):
        evidence_of(Study().report([expected("UnitMem", against=" ")]))


def test_unitmem_without_a_half_is_unitmem_whichever_half_it_was() -> None:
    made = {"name": "highest", "seed": 0, "cross_fit": {"halves": 2, "seed": 3}}
    every = [
        stripped({**made, "scores": f"unitmem without 54 images ({one})"})
        for one in ("0f561d15", "aa1c6f6d")
    ]
    assert every[0] == every[1]
    assert every[0]["scores"] == "unitmem"


def test_the_day_of_a_declaration_is_told_with_what_was_known_by_then() -> None:
    early, late = ({"declared": {"date": "2026-11-27", "completions": n}} for n in (0, 7))
    assert declared_sentence({}) == ""
    assert "on 2026-11-27 (UTC), when 0 arms" in declared_sentence(early)
    assert "before anything was extracted." in declared_sentence(early)
    assert declared_sentence(early).endswith("Runs elsewhere are not recorded here.")
    assert declared_sentence(late).endswith("what these showed may have been known.")


def test_names_are_escaped_and_the_figure_is_drawn() -> None:
    study = Study()
    study.add(f"$x$ {HOSTILE}", HIGHEST, 0.1, 0.5, 0.15)
    study.random(3)
    report = study.report([expected(f"$x$ {HOSTILE}")])
    section = render(report, figures(report))
    section = section[section.index('id="evidence"') : section.index('id="extraction"')]
    assert HOSTILE not in section
    assert "$x$ &lt;script&gt;" in section
    assert "{{" not in re.sub(r"<style>.*?</style>", "", section)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = Study()
    study.add("UnitMem", HIGHEST, 0.1, 0.5, 0.15)
    study.add("UnitMem, 40%", HIGHEST, 0.4, 0.1, 0.25)
    study.random(19)
    declared = [
        expected("UnitMem"),
        expected("UnitMem, 40%", family="far"),
        expected("UnitMem", at="equal fraction", family=None),
        expected("UnitMem, 40%", against="UnitMem", at="equal fraction", family="one"),
    ]
    return study.report(declared).save(tmp_path_factory.mktemp("study") / "report")


def test_a_report_with_evidence_fits_the_schema_and_comes_back(folder: Path) -> None:
    document = json.loads((folder / "report.json").read_text())
    jsonschema.validate(document, json.loads((ROOT / "docs" / "report.schema.json").read_text()))
    assert Report.load(folder).to_dict()["evidence"] == document["evidence"]


@pytest.mark.parametrize(
    "altered", [None, ("hypotheses", "p_smooth"), ("cells", "effect_low"), ("cells", "to_all")]
)
def test_all_of_it_is_recomputed_from_the_folder(
    folder: Path, tmp_path: Path, altered: tuple[str, str] | None
) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "report"))
    document = json.loads((copied / "report.json").read_text())
    if altered is not None:
        kind, name = altered
        document["evidence"][kind][0][name] += 0.01
        (copied / "report.json").write_text(json.dumps(document))
    command = [sys.executable, ROOT / "examples" / "recompute.py", copied]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    assert done.returncode == (altered is not None), done.stdout
    assert altered is None or f": {altered[1]}: " in done.stdout
