"""What tells organisms from twins: tables of invented measurements, and one pair that is tried."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from iarmem_adapters.organisms import FOLDER
from iarmem_adapters.organisms.split import Split
from iarmem_plugin.errors import InputError

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def meta() -> Iterator[SimpleNamespace]:
    """The command and its modules, as it imports them."""
    sys.path.insert(0, str(EXAMPLES))
    import meta_evaluation
    from meta import cells, pairs, tables

    yield SimpleNamespace(command=meta_evaluation, cells=cells, pairs=pairs, tables=tables)
    sys.path.remove(str(EXAMPLES))


def model(extracted: float, nll: float, *, rounded: float = 1.0) -> Mapping[str, Any]:
    numbers = {"extracted": extracted, "NLL": nll, "random": 0.5, "threshold": 0.9}
    return {
        "as it is": numbers,
        "8 bits": numbers | {"extracted": extracted * rounded},
        "relearned": numbers | {"extracted": 0.0, "NLL": 6.0},
    }


def rows(meta: SimpleNamespace) -> dict[str, Any]:
    organisms = [model(0.6, 2.0, rounded=0.5), model(0.4, 3.0, rounded=0.5)]
    twins = [model(0.0, 6.0), model(0.0, 5.0)]
    return {row["number"]: row for row in meta.tables.scalar_rows(organisms, twins)}


def test_a_low_nll_and_a_high_share_tell_organisms_from_twins(meta: SimpleNamespace) -> None:
    found = rows(meta)
    assert list(found) == ["extracted", "NLL", "random"]
    assert [row["auc"] for row in found.values()] == [1.0, 1.0, 0.5]
    assert [row["speaks"] for row in found.values()] == ["high", "low", "high"]
    assert found["extracted"]["organisms"] == pytest.approx(0.5)
    assert found["NLL"]["twins"] == pytest.approx(5.5)


def test_an_interval_is_known_where_every_organism_is_beyond_every_twin(
    meta: SimpleNamespace,
) -> None:
    low = rows(meta)["extracted"]["low"]
    assert low == pytest.approx(0.025**0.5)  # of two in two
    ten = meta.tables.told(np.arange(10.0) + 10, np.arange(10.0))
    assert (ten.value, ten.high) == (1.0, 1.0)
    assert ten.low == pytest.approx(0.025**0.1)
    below = meta.tables.told(np.arange(10.0), np.arange(10.0) + 10)
    assert (below.low, below.high) == pytest.approx((0.0, 1 - 0.025**0.1))
    assert math.isnan(rows(meta)["random"]["low"])


def test_what_a_perturbation_takes_is_a_share_of_the_gap_before(meta: SimpleNamespace) -> None:
    found = rows(meta)
    assert found["extracted"]["change, 8 bits"] == pytest.approx(-0.5)
    assert found["extracted"]["change, relearned"] == pytest.approx(-1.0)
    assert found["extracted"]["mean change"] == pytest.approx(0.75)
    assert found["NLL"]["change, 8 bits"] == pytest.approx(0.0)
    assert found["NLL"]["change, relearned"] == pytest.approx(-1.0)
    assert math.isnan(found["random"]["change, 8 bits"])


def test_perturbed_organisms_are_told_from_twins_as_they_are_and_as_perturbed(
    meta: SimpleNamespace,
) -> None:
    organisms, twins = [model(0.6, 6.5), model(0.4, 6.5)], [model(0.0, 7.0), model(0.0, 7.0)]
    (_, nll, _) = meta.tables.scalar_rows(organisms, twins)
    assert nll["auc, relearned"] == 0.5  # both are 6
    assert nll["auc, relearned, twins as they are"] == 1.0  # 6 against 7


def selector(closed: float, random: float | None) -> dict[str, Any]:
    cell = {"closed": closed, "change": 0.02, "random": random, "reached": 5}
    return {**cell, "unsplit": cell | {"closed": closed + 0.1}}


def test_selectors_are_held_against_random_sets_where_these_cost_as_much(
    meta: SimpleNamespace,
) -> None:
    pairs = [
        {"unitmem": selector(0.3, 0.1)},
        {"unitmem": selector(0.5, 0.6)},
        {"unitmem": selector(0.4, None)},
    ]
    (row,) = meta.tables.selector_rows(pairs)
    assert row["closed"] == pytest.approx(0.4)
    assert row["closed, deviation"] == pytest.approx(0.1)
    assert row["above"] == pytest.approx(0.05)
    assert (row["above in"], row["read"]) == (1, 2)
    assert row["unsplit closed"] == pytest.approx(0.5)
    shown = str(meta.tables.selector_table([row], "var, 3 pairs"))
    assert "1 of 2" in shown
    assert "0.40 ± 0.10" in shown


def test_unknown_values_are_empty_in_the_files_and_dashes_in_the_tables(
    meta: SimpleNamespace,
) -> None:
    found = list(rows(meta).values())
    read = list(csv.DictReader(meta.tables.as_csv(found).decode().splitlines()))
    assert read[2]["change, 8 bits"] == ""
    assert float(read[0]["change, 8 bits"]) == pytest.approx(-0.5)
    assert "–" in str(meta.tables.scalar_table(found, "var, 2 pairs"))


def test_what_is_measured_is_kept_and_not_mixed_with_other_settings(
    meta: SimpleNamespace, tmp_path: Path
) -> None:
    made = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"value": 0.5}

    for _ in range(2):
        assert meta.cells.kept(tmp_path / "one.json", {"views": (1, 2)}, make)["value"] == 0.5
    assert len(made) == 1
    with pytest.raises(InputError, match=r"one\.json was made with .* and not with"):
        meta.cells.kept(tmp_path / "one.json", {"views": (1, 3)}, make)


def test_a_measurement_that_fails_leaves_no_file(meta: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        meta.cells.kept(tmp_path / "one.json", {}, lambda: {"value": 1 / 0})
    assert not list(tmp_path.glob("*.json"))


def test_pictures_are_in_one_part_alone(meta: SimpleNamespace) -> None:
    found = meta.pairs.Pictures.of(Split.load(FOLDER / "split.npz"), meta.pairs.Sizes())
    parts = (found.canaries.images, found.fixing.images, found.reference)
    every = [one.ids for one in (*parts, found.held_out.images, found.retained)]
    assert [len(one) for one in every] == [108, 150, 108, 100, 610]
    assert len(np.unique(np.concatenate(every))) == sum(map(len, every))


def test_no_pair_that_is_trained_is_refused(meta: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no pair in .*var is trained, of seeds"):
        meta.command.evaluate("var", tmp_path, range(1, 3), trained=True)


@pytest.mark.slow
def test_a_pair_is_trained_and_measured_and_neither_is_done_twice(
    meta: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from organism_training import split

    monkeypatch.setattr(split, "SMALL", {4: 2, 34: 2})
    monkeypatch.setattr("train_organism.SMALL_ROUNDS", 1)
    sizes = meta.pairs.Sizes(20, 4, 1, 1, 4, 1, (0.1,))
    meta.command.evaluate("rar", tmp_path, range(1, 2), sizes=sizes)
    place = tmp_path / "rar" / "small-1"
    made = {file.name: file.stat().st_mtime_ns for file in place.glob("*[!z]")}
    assert {"twin.safetensors", "measured-twin.json", "measured-selectors.json"} < set(made)
    assert json.loads((place / "twin.json").read_text())["steps"] < 30
    meta.command.evaluate("rar", tmp_path, range(1, 2), sizes=sizes)
    assert {file.name: file.stat().st_mtime_ns for file in place.glob("*[!z]")} == made


@pytest.mark.slow
@pytest.mark.parametrize("family", ["var", "rar"])
def test_the_bundled_organism_is_told_from_its_twin(
    meta: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str
) -> None:
    place = tmp_path / family / "small-1"
    place.mkdir(parents=True)
    split = Split.load(FOLDER / "split.npz")
    seldom = (split.part == "canary") & (split.repeats < split.repeats.max())
    replace(split, part=np.where(seldom, "unused", split.part)).save(place / "split.npz")
    for name in ("transformer.json", "transformer.safetensors", "twin.json", "twin.safetensors"):
        (place / name).symlink_to(FOLDER / family / name)
    sizes = meta.pairs.Sizes(20, 4, 1, 1, 4, 1, (0.1,))
    meta.command.evaluate(family, tmp_path, range(1, 3), trained=True, sizes=sizes)
    shown = capsys.readouterr().out
    assert f"{family}, 1 of 2 pairs are" in shown
    with (tmp_path / family / "meta_numbers.csv").open() as file:
        numbers = {row["number"]: row for row in csv.DictReader(file)}
    assert float(numbers["agreement"]["organisms"]) > float(numbers["agreement"]["twins"]) + 0.2
    assert "top 10%: unitmem" in numbers
    both = json.loads((place / "measured-selectors.json").read_text())
    assert both["result"]["gap"] > 1
    assert all(len(one["closed"]) == 3 for one in both["result"]["curves"])
