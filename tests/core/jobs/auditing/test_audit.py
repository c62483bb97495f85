"""Which of one's own pictures a model memorized: verdicts, false alarms, neurons, files."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from iarmem_plugin.activations.capture import capture
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.statistics import clopper_pearson
from iarmem_plugin.interfaces import Attempt, Condition, ForwardInputs, Metric, Sampling, Trigger
from iarmem_plugin.jobs.auditing.job import audit
from iarmem_plugin.jobs.auditing.peaks import VIEWS, RunnerUp
from iarmem_plugin.jobs.triggers.relearning import Relearn
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.report.auditing.audit import Audit
from iarmem_plugin.report.auditing.showing import FILES, card, page
from iarmem_plugin.testing.metric import MetricTests
from iarmem_plugin.testing.tiny import CLASSES, PIXELS, TinyAdapter

MINE, UNSEEN = 5, 42
EXAMPLES = Path(__file__).parents[4] / "examples"


class Oracle(Trigger):
    """Gives the first pictures back: even ones after 1 step, odd ones after 3."""

    name = "oracle"
    unit = "steps"
    budgets = (1, 3)

    def attempts(
        self, model: Any, tokens: Tensor, condition: Condition, *, given: int, seed: int
    ) -> Iterator[Attempt]:
        plain = model.complete(tokens[:, :given], condition, Sampling())
        for step in self.budgets:
            known = condition.image < MINE - 1  # not the last one
            known = known & (condition.image % 2 == 0) if step == 1 else known
            yield Attempt(step, tokens.where(known[:, None], plain), given)


class Untold(TinyAdapter):
    """A tiny model that has no classes."""

    name = "untold"
    conditions = frozenset()
    without_class = False
    condition_width = 0

    def teacher_forced(self, tokens: Tensor, condition: Condition) -> ForwardInputs:
        return super().teacher_forced(tokens, Condition.of([0] * len(condition)))

    def complete(self, prefix: Tensor, condition: Condition, sampling: Sampling) -> Tensor:
        return super().complete(prefix, Condition.of([0] * len(condition)), sampling)


def drawn(count: int, seed: int, *, labelled: bool = True) -> Images:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, PIXELS, PIXELS, 3), np.uint8)
    names = [f"{seed}-{number}.png" for number in range(count)]
    labels = np.arange(count) % CLASSES if labelled else None
    return Images.from_arrays(pixels, labels, names=names)


@pytest.fixture(scope="module")
def found() -> Audit:
    model = ImageARModel(TinyAdapter.make())
    return audit(model, drawn(MINE, 1), drawn(UNSEEN, 2), triggers=[Oracle()])


def test_what_comes_back_is_extracted_with_the_smallest_budget_that_does_it(found: Audit) -> None:
    extracted = {one.path: one.budget for one in found.having("extracted")}
    assert extracted == {"1-0.png": 1, "1-1.png": 3, "1-2.png": 1, "1-3.png": 3}
    assert {one.found for one in found.having("extracted")} == {
        "oracle, 1 step",
        "oracle, 3 steps",
    }
    assert found.pictures[-1].path == "1-4.png"


def test_false_alarms_are_those_of_held_out_pictures_that_fixed_no_threshold(found: Audit) -> None:
    assert (found.calibrating, found.held_out) == (21, 21)
    assert [one.verdict for one in found.counts] == [
        *("extracted", "recognisable", "member-like", "any of these"),
    ]
    for one in found.counts:
        assert (one.low, one.high) == clopper_pearson(one.false_alarms, 21)
    assert found.counts[-1].pictures == sum(one.pictures for one in found.counts[:3])
    assert found.chance(1) == pytest.approx(1 / 2)  # the highest of all is in either half
    assert found.chance(2) == pytest.approx(20 / 41 / 2)
    assert found.expected == pytest.approx(1 / 22)  # none of 21 above, so the next one of 22


def test_pictures_never_seen_get_verdicts_about_as_often_as_expected() -> None:
    model, size = ImageARModel(TinyAdapter.make()), 200
    unseen = audit(model, drawn(size, 3), drawn(size, 4), rate=0.05, neurons=False)
    allowed = 4 * np.sqrt(2 * 0.06 * 0.94 / 100)  # both halves are draws
    for one in unseen.counts[:3]:
        assert one.false_alarms / 100 < 0.06 + allowed
        assert one.pictures / size < 0.06 + allowed
    assert unseen.inference is not None
    assert unseen.inference.p > 0.01


def test_a_model_without_classes_is_audited_without_what_needs_them() -> None:
    model = ImageARModel(Untold.make())
    mine, unseen = (drawn(count, seed, labelled=False) for count, seed in ((3, 1), (40, 2)))
    untold = audit(model, mine, unseen)
    assert untold.triggers == ("prefix(budgets=[5])",)
    assert [one.label for one in untold.pictures] == [None] * 3
    assert list(untold.pictures[0].signals) == ["nll", "min-k"]
    embedding, signal = untold.left_out
    assert "'learned-embedding' is left out" in embedding
    assert "conditional-unconditional is left out" in signal
    assert untold.inference is None  # 3 pictures


def test_neurons_peak_on_their_picture_and_the_runner_up_is_the_next(found: Audit) -> None:
    mine, unseen = drawn(MINE, 1), drawn(UNSEEN, 2)
    shown = mine.join(unseen.subset(range(1, UNSEEN, 2)))
    batches = capture(ImageARModel(TinyAdapter.make()), shown, views=VIEWS)
    values = np.concatenate(
        [one.transpose("block", "scale", "neuron", "image").to_numpy() for one in batches], -1
    )
    scales = [scale.name for scale in TinyAdapter.make().layout.scales]
    for one in found.pictures:
        assert one.neurons
        scores = [peak.unitmem for peak in one.neurons]
        assert scores == sorted(scores, reverse=True)
        for peak in one.neurons:
            row = values[peak.block, scales.index(peak.scale), peak.neuron]
            first, second = np.argsort(-row)[:2]
            rest = (row.sum() - row[first]) / (len(row) - 1)
            assert shown.paths[first] == one.path
            assert shown.paths[second] == peak.runner_up
            assert peak.held_out == (second >= MINE)
            assert peak.unitmem == pytest.approx((row[first] - rest) / (row[first] + rest))


class TestRunnerUp(MetricTests):
    @pytest.fixture
    def metric(self) -> type[Metric]:
        return RunnerUp


def test_the_folder_holds_a_page_a_row_a_picture_and_the_numbers(
    found: Audit, tmp_path: Path
) -> None:
    folder = found.save(tmp_path / "audited")
    assert sorted(one.name for one in folder.iterdir()) == sorted(FILES)
    rows = list(csv.DictReader((folder / "audit.csv").read_text().splitlines()))
    assert [row["picture"] for row in rows] == [one.path for one in found.pictures]
    assert [row["verdict"] for row in rows] == [one.verdict for one in found.pictures]
    assert rows[0]["neuron_1_runner_up"] == found.pictures[0].neurons[0].runner_up
    assert json.loads((folder / "audit.json").read_text()) == found.to_dict()
    assert found.save(folder) == folder  # in place of the earlier one
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.txt").touch()
    with pytest.raises(InputError, match=r"other files, such as 'x\.txt', and no audit\.json"):
        found.save(tmp_path / "other")


def test_the_page_shows_each_picture_and_what_a_verdict_does_not_say(found: Audit) -> None:
    shown = page(found)
    back = found.having("extracted") + found.having("recognisable")
    assert shown.count("data:image/png;base64,") == MINE + len(back)
    assert shown.count('alt="what came back of ') == len(back) >= 4
    assert len(shown) < 60_000
    assert "Tried: oracle, 1 or 3 steps; and" in shown
    assert "may have seen a picture already" in shown
    assert "Of 5 pictures that the model never saw, about 0.2 (4.5%) would get each" in shown
    assert "Nothing found is no proof of absence" in shown
    assert "lower bounds" in shown
    assert "of the same kind" in shown
    assert "statistical hint" in shown
    assert f"{found.counts[0].false_alarms} of 21" in shown
    hostile = replace(found.pictures[0], path="<script>alert(1)</script>")
    odd = page(replace(found, pictures=(hostile, *found.pictures[1:])))
    assert "<script" not in odd
    assert "&lt;script&gt;" in odd


def test_what_came_back_stands_beside_what_it_was_compared_with(found: Audit) -> None:
    for one in found.having("extracted"):  # the oracle gives all tokens back
        assert one.pixels is not None
        assert one.completion is not None
        assert np.array_equal(one.pixels, one.completion)
    for one in found.having("nothing found"):
        assert one.completion is None


@pytest.mark.parametrize("changed", ["nothing", "audit.csv", "audit.json", "values.csv", "count"])
def test_an_audit_is_made_again_from_its_folder_and_a_change_by_hand_is_found(
    found: Audit, tmp_path: Path, changed: str
) -> None:
    folder = found.save(tmp_path / "audited")
    if changed == "count":
        written = json.loads((folder / "audit.json").read_text())
        written["counts"][0]["false_alarms"] += 1
        (folder / "audit.json").write_text(json.dumps(written))
    elif changed != "nothing":
        text = (folder / changed).read_text()
        (folder / changed).write_text(text.replace("extracted", "recognisable", 1))
    command = [sys.executable, str(EXAMPLES / "recompute_audit.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    assert done.returncode == (changed != "nothing"), done.stdout


def test_a_card_shows_one_picture(found: Audit) -> None:
    text = str(card(found))
    assert "extracted" in text
    assert "oracle, " in text


def test_an_audit_of_one_picture_is_the_same_verdict(found: Audit) -> None:
    model = ImageARModel(TinyAdapter.make())
    single = audit(model, drawn(MINE, 1).subset([0]), drawn(UNSEEN, 2), triggers=[Oracle()])
    (one,) = single.pictures
    many = next(other for other in found.pictures if other.path == one.path)
    assert (one.verdict, one.budget) == (many.verdict, many.budget)
    assert one.similarity == pytest.approx(many.similarity)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images": drawn(MINE, 1).subset([])}, "there are no pictures to audit"),
        ({"held_out": drawn(39, 2)}, "39 held-out pictures were given"),
        ({"held_out": drawn(40, 2, labelled=False)}, "these have none"),
        ({"triggers": []}, "there are no triggers"),
        ({"triggers": [Relearn()]}, "needs images of its training"),
        ({"triggers": [Oracle(), Oracle()]}, "was given twice"),
        ({"rate": 1.0}, "the rate is 1.0; expected 0 or more, and below 1"),
    ],
)
def test_what_cannot_be_audited_is_refused(changed: dict[str, Any], said: str) -> None:
    given = {"images": drawn(MINE, 1), "held_out": drawn(40, 2), "triggers": None, **changed}
    images, held_out = given.pop("images"), given.pop("held_out")
    with pytest.raises(InputError, match=said):
        audit(ImageARModel(TinyAdapter.make()), images, held_out, **given)
