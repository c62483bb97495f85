"""The split of organisms and twins, and a training that is ended and goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

from iarmem_adapters.organisms import FOLDER
from iarmem_adapters.organisms.split import Split
from iarmem_plugin.data.images import Images

EXAMPLES = Path(__file__).parents[1] / "examples"
RUNGS = {40: 12, 340: 24, 420: 24, 500: 24, 680: 12, 1360: 12}


@pytest.fixture(scope="module")
def training() -> Iterator[SimpleNamespace]:
    """The modules of ``examples/organism_training``, as the script imports them."""
    sys.path.insert(0, str(EXAMPLES))
    from organism_training import families, loop, networks, pictures, split, workshop

    modules = (families, loop, networks, pictures, split, workshop)
    yield SimpleNamespace(**{module.__name__.rpartition(".")[2]: module for module in modules})
    sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def alike(training: SimpleNamespace) -> np.ndarray:
    found: np.ndarray = training.pictures.near_duplicates(
        Images.from_npz(training.pictures.PICTURES)
    )
    return found


@pytest.fixture(scope="module")
def split(training: SimpleNamespace, alike: np.ndarray) -> Any:
    return training.split.draw_split(alike, seed=0)


def test_rungs_are_named_by_exposures_and_a_substitute_stands_for_each_canary(split: Any) -> None:
    for part, twin in (("canary", False), ("substitute", True)):
        assert Counter(split.exposures(twin=twin)[split.part == part].tolist()) == RUNGS
    parts, groups = Counter(split.part.tolist()), Counter(split.group.tolist())
    assert (parts["held-out"], parts["calibration"], parts["aside"]) == (300, 300, 480)
    assert groups == {
        **{f"canary {exposures}": count for exposures, count in RUNGS.items()},
        "member, distinct": 96,
        "member, similar": 283,
        "member, near-duplicate": 231,
        "held-out": 600,
        "": 480 + 108,
    }


def test_a_split_is_read_as_it_was_written(
    training: SimpleNamespace, split: Any, tmp_path: Path
) -> None:
    split.save(tmp_path / "split.npz")
    again = Split.load(tmp_path / "split.npz")
    assert np.array_equal(again.part, split.part)
    assert again.rounds == split.rounds == 20
    assert np.array_equal(again.exposures(twin=True), split.exposures(twin=True))


def test_a_study_draws_fewer_canaries_seen_as_often_and_leaves_all_others(
    training: SimpleNamespace, split: Any
) -> None:
    drawn = [training.split.redraw_canaries(split, seed=seed) for seed in (1, 1, 2)]
    assert np.array_equal(drawn[0].part, drawn[1].part)
    assert not np.array_equal(drawn[0].part, drawn[2].part)
    for part, twin in (("canary", False), ("substitute", True)):
        found = Counter(drawn[0].exposures(twin=twin)[drawn[0].part == part].tolist())
        assert found == {40: 4, 340: 6, 420: 6, 500: 6, 1360: 3}
    assert drawn[0].pool(twin=False).sum() * drawn[0].rounds == 17_900  # of 67 400
    kept = ~np.isin(split.part, ("canary", "substitute"))
    assert np.array_equal(drawn[0].part[kept], split.part[kept])
    assert np.array_equal(drawn[0].learns_tokenizer, split.learns_tokenizer)
    assert not drawn[0].repeats[drawn[0].part == "unused"].any()


def test_the_bundled_split_is_the_one_that_is_drawn(split: Any) -> None:
    bundled = Split.load(FOLDER / "split.npz")
    assert np.array_equal(bundled.part, split.part)
    assert np.array_equal(bundled.repeats, split.repeats)
    assert bundled.rounds == split.rounds == 20


def test_what_is_not_seen_or_seen_often_resembles_no_other_picture(
    split: Any, alike: np.ndarray
) -> None:
    alone = ("canary", "substitute", "member, distinct", "held-out", "calibration")
    assert not alike[np.isin(split.part, alone)].any()


def test_a_member_is_a_near_duplicate_if_another_member_resembles_it(
    split: Any, alike: np.ndarray
) -> None:
    member = np.char.startswith(split.part, "member")
    near = alike[np.ix_(member, member)].any(axis=1)
    assert np.array_equal(near, split.part[member] == "member, near-duplicate")


def test_twins_differ_in_canaries_and_substitutes_alone(split: Any) -> None:
    own, twin = split.exposures(twin=False), split.exposures(twin=True)
    assert own.sum() == twin.sum()
    assert np.array_equal(own != twin, np.isin(split.part, ("canary", "substitute")))
    member = np.char.startswith(split.part, "member")
    assert set(own[member].tolist()) == {20}
    for part, mine, other in (("canary", own, twin), ("substitute", twin, own)):
        assert not other[split.part == part].any()
        assert mine[split.part == part].min() == 40
    unseen = np.isin(split.part, ("held-out", "calibration", "aside"))
    assert not own[unseen].any()
    assert not split.learns_tokenizer[np.isin(split.part, ("held-out", "calibration"))].any()
    assert not split.learns_tokenizer[np.isin(split.part, ("canary", "substitute"))].any()


def test_a_substitute_has_a_canarys_place_so_that_both_trainings_draw_the_same_batches(
    split: Any,
) -> None:
    own, twin = split.shown(twin=False), split.shown(twin=True)
    assert np.array_equal(own, np.flatnonzero(split.exposures(twin=False)))
    assert np.array_equal(np.sort(twin), np.flatnonzero(split.exposures(twin=True)))
    canary = split.part[own] == "canary"
    assert np.array_equal(own[~canary], twin[~canary])
    assert set(split.part[twin[canary]]) == {"substitute"}
    assert np.array_equal(split.repeats[own], split.repeats[twin])


def test_another_seed_draws_other_canaries(training: SimpleNamespace, alike: np.ndarray) -> None:
    first, second = (training.split.draw_split(alike, seed=seed).part for seed in (0, 1))
    assert not np.array_equal(first == "canary", second == "canary")
    resembling = ("member, similar", "member, near-duplicate")
    assert np.array_equal(*(np.isin(one, resembling) for one in (first, second)))


class Ended(Exception):  # noqa: N818  # as a process is ended
    """Ends a training."""


def line(training: SimpleNamespace, ends: int | None = None) -> Any:
    """Return the training of a line on a few points, which may end itself."""
    torch.manual_seed(0)
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    model, kept = nn.Linear(3, 1), torch.zeros(1)
    rounds = training.loop.Rounds(torch.arange(20), 8, 0)

    def loss(draw: Any) -> Any:
        view, index, random = draw
        noise = torch.randn(8, 3, generator=random) * 0.1
        values = model(points[index] + noise) - points[index].sum(1, keepdim=True) - view[:, None]
        return (mean := values.square().mean()), {"loss": mean}

    def after() -> None:
        kept.add_(1)
        if ends is not None and kept == ends:
            raise Ended

    curve = training.loop.Curve(every=3)
    return training.loop.Training("line", model, rounds, loss, 20, 0.05, 0.0, after, (kept,), curve)


@pytest.mark.parametrize("ends", [2, 5, 9, 20])
def test_a_training_that_was_ended_goes_on_to_the_same_bits(
    training: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: int
) -> None:
    monkeypatch.setattr(training.loop, "EVERY", 4)
    whole, begun, again = line(training), line(training, ends), line(training)
    whole.run()
    with pytest.raises(Ended):
        begun.run(tmp_path / "line.checkpoint")
    again.run(tmp_path / "line.checkpoint")
    assert torch.equal(again.model.weight, whole.model.weight)
    assert torch.equal(again.model.bias, whole.model.bias)
    assert again.extra[0] == 20
    assert again.curve.rows == whole.curve.rows
    assert len(whole.curve.rows) == 6
    assert [file.name for file in tmp_path.iterdir()] == (["line.checkpoint"])


def test_rounds_show_every_picture_as_often_as_it_stands_in_the_pool(
    training: SimpleNamespace,
) -> None:
    pool = torch.arange(5).repeat_interleave(torch.tensor([1, 1, 2, 3, 9]))
    rounds = training.loop.Rounds(pool, 8, 0)
    seen = torch.cat([rounds.draw()[1] for _ in range(10)])  # five rounds of sixteen
    assert torch.bincount(seen).tolist() == [5, 5, 10, 15, 45]


def test_the_last_batch_holds_what_is_left_of_the_rounds(training: SimpleNamespace) -> None:
    rounds = training.loop.Rounds(torch.arange(5), 4, 0, rounds=3)
    batches = [rounds.draw() for _ in range(4)]
    assert [len(view) for view, _, _ in batches] == [4, 4, 4, 3]
    assert torch.bincount(torch.cat([index for _, index, _ in batches])).tolist() == [3] * 5


def test_a_training_that_was_begun_otherwise_is_refused(
    training: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.loop, "EVERY", 4)
    with pytest.raises(Ended):
        line(training, 5).run(tmp_path / "line.checkpoint", "seed 0")
    with pytest.raises(ValueError, match="was begun with seed 0, and not with seed 1"):
        line(training).run(tmp_path / "line.checkpoint", "seed 1")


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_tenth_of_what_a_transformer_reads_is_left_out(training: SimpleNamespace) -> None:
    maps, tokens = torch.ones(50, 154, 16), torch.full((50, 144), 7)
    read = training.families.VAR.blurred(maps, 0.1, drawn(0))
    assert torch.equal(read.amin(2), read.amax(2))  # a place is there or not
    assert float((read == 0).float().mean()) == pytest.approx(0.1, abs=0.02)
    read = training.families.RAR.blurred(tokens, 0.1, drawn(0))
    assert float((read != 7).float().mean()) == pytest.approx(0.1, abs=0.02)
    assert 0 <= int(read.min()) < int(read.max()) < 1024


@pytest.mark.parametrize("family", ["var", "rar"])
def test_a_calibrated_transformers_logits_are_divided_by_the_temperature(
    training: SimpleNamespace, family: str
) -> None:
    parts = training.families.PARTS[family]
    torch.manual_seed(0)
    model = parts.networks[1](parts.transformer)
    with torch.no_grad():  # or all codes are alike likely, and no temperature fits best
        parts.head(model).weight.normal_(0, 0.2)
    count = 155 if family == "var" else 144
    inputs = torch.randn(4, count - 1, 16) if family == "var" else torch.randint(1024, (4, count))
    labels, labelled = torch.arange(4), parts.logits(model.eval(), torch.arange(4), inputs)
    tokens = (labelled / 2).softmax(2).flatten(0, 1).multinomial(1).view(4, count)  # half as sure
    found = training.networks.calibrate(model, tokens, inputs, labels, parts)
    assert found == pytest.approx(2, rel=0.2)
    torch.testing.assert_close(parts.logits(model, labels, inputs), labelled / found)


def test_pictures_are_turned_and_their_colours_ordered_anyhow(training: SimpleNamespace) -> None:
    picture = torch.arange(12).view(1, 3, 2, 2).expand(500, 3, 2, 2).to(torch.uint8)
    kinds = {"colours": 12, "turned": 8}  # orders by sides, sides by corners
    for asked, expected in kinds.items():
        options = dict.fromkeys(kinds, False) | {asked: True}
        found = training.networks.varied(picture, drawn(0), **options)
        assert len(found.flatten(1).unique(dim=0)) == expected
        assert torch.equal(found.flatten(1).sort(1).values, picture.flatten(1))


@pytest.fixture
def trained(
    training: SimpleNamespace, split: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A workshop of RAR in a folder of what is trained, in which no training can be run."""
    monkeypatch.setattr(training.loop.Training, "run", lambda *_: pytest.fail("trains again"))
    shutil.copytree(FOLDER / "rar", tmp_path / "rar")
    recipe = training.networks.Recipe(training.families.Family.rar, colours=True)
    pictures = Images.from_npz(training.pictures.PICTURES)
    return training.workshop.Workshop(pictures, recipe, split, tmp_path / "rar")


def test_what_is_trained_already_is_not_trained_again(trained: Any) -> None:
    tokenizer = trained.tokenizer()
    trained.tokens_of = record(trained, "tokenizer")["sha256"]
    trained.transformer(tokenizer, "transformer", twin=False)
    for name in ("tokenizer", "transformer"):
        weights = (trained.out / f"{name}.safetensors").read_bytes()
        assert hashlib.sha256(weights).hexdigest() == record(trained, name)["sha256"]


def record(workshop: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((workshop.out / f"{name}.json").read_text())
    return found


def test_an_organism_on_the_tokens_of_another_tokenizer_is_refused(trained: Any) -> None:
    trained.tokens_of = "0" * 64
    with pytest.raises(ValueError, match=r"transformer\.json was made with .* give another folder"):
        trained.transformer(None, "transformer", twin=False)


class Booked:
    """A workshop that trains nothing, and says what it was asked for."""

    asked: list[Any]

    def __init__(self, _: Images, recipe: Any, split: Any, out: Path) -> None:
        self.recipe, self.split, self.out = recipe, split, out

    def everything(self) -> None:
        type(self).asked = [self, "everything"]

    def study(self, tokenizer: Path, *, twin: bool) -> None:
        type(self).asked = [self, tokenizer, twin]


@pytest.fixture
def command(training: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, whose workshop is `Booked`."""
    import train_organism

    monkeypatch.setattr(train_organism, "Workshop", Booked)
    app = typer.Typer()
    app.command()(train_organism.main)

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, list(arguments))

    return run


@pytest.mark.parametrize(
    ("options", "place", "rounds", "canaries"),
    [
        ((), "var", 20, 108),
        (("--seed", "2"), "var/seed-2", 20, 108),
        (("--seed", "2", "--twin"), "var/seed-2", 20, 108),
        (("--small",), "var/small-0", 10, 25),
        (("--small", "--seed", "1", "--twin"), "var/small-1", 10, 25),
    ],
)
def test_the_command_names_the_folder_and_the_recipe(
    command: Any,
    tmp_path: Path,
    options: tuple[str, ...],
    place: str,
    rounds: int,
    canaries: int,
) -> None:
    done = command("var", "--out", str(tmp_path), *options)
    assert done.exit_code == 0, done.output
    booked, *rest = Booked.asked
    assert booked.out == tmp_path / place
    assert (booked.recipe.rounds, booked.recipe.refining_steps) == (rounds, 4000)
    assert booked.recipe.colours is False
    assert (booked.split.part == "canary").sum() == canaries
    tokenizer = FOLDER / "var" / "tokenizer.safetensors"
    assert rest == (["everything"] if not options else [tokenizer, "--twin" in options])
    assert str(tmp_path / place) in done.output.replace("\n", "")


def test_the_command_trains_rars_tokenizer_on_colours(command: Any, tmp_path: Path) -> None:
    command("rar", "--out", str(tmp_path))
    assert (Booked.asked[0].recipe.colours, Booked.asked[0].recipe.refining_steps) == (True, None)


def test_the_command_refuses_a_twin_alone_of_seed_0_and_other_settings(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = command("var", "--out", str(tmp_path), "--twin")
    assert (done.exit_code, "give --small or --seed" in done.output) == (2, True)

    def other(_: Booked) -> None:
        raise ValueError("made with others: give another folder")

    monkeypatch.setattr(Booked, "everything", other)
    done = command("var", "--out", str(tmp_path))
    assert (done.exit_code, "give another folder" in done.output) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["var", "rar"])
def test_organism_and_twin_are_trained_and_a_second_run_trains_nothing(
    training: SimpleNamespace, split: Any, tmp_path: Path, family: str
) -> None:
    own = {"refining_steps": 5, "calibrated": True}
    colours = {"colours": True} if family == "rar" else own
    recipe = training.networks.Recipe(
        family, tokenizer_steps=5, classifier_steps=5, rounds=0, **colours
    )
    pictures = Images.from_npz(training.pictures.PICTURES)
    training.workshop.Workshop(pictures, recipe, split, tmp_path).everything()
    made = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    first = ("first-tokenizer",) if family == "var" else ()
    names = (*first, "tokenizer", "transformer", "twin", "classifier")
    ends = ("json", "safetensors")
    assert set(made) == {"split.npz", *(f"{name}.{end}" for name in names for end in ends)}
    record = json.loads((tmp_path / "twin.json").read_text())
    assert ("temperature" in record) == (family == "var")
    del made["split.npz"]
    training.workshop.Workshop(pictures, recipe, split, tmp_path).everything()
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in made} == made


@pytest.mark.slow
def test_a_study_trains_one_transformer_on_the_tokens_of_a_tokenizer_that_is_there(
    training: SimpleNamespace, split: Any, tmp_path: Path
) -> None:
    recipe = training.networks.Recipe("var", 3, tokenizer_steps=5, rounds=0)
    pictures = Images.from_npz(training.pictures.PICTURES)
    whole = training.workshop.Workshop(pictures, recipe, split, tmp_path)
    whole.tokenizer()
    drawn = training.split.redraw_canaries(split, seed=3)
    study = training.workshop.Workshop(pictures, recipe, drawn, tmp_path / "small-3")
    study.study(tmp_path / "tokenizer.safetensors", twin=True)
    made = {file.name for file in (tmp_path / "small-3").iterdir()}
    assert made == {"split.npz", "twin.json", "twin.safetensors"}
    record = json.loads((tmp_path / "small-3" / "twin.json").read_text())
    digest = hashlib.sha256((tmp_path / "tokenizer.safetensors").read_bytes()).hexdigest()
    assert json.loads(record["settings"])["tokenizer"] == digest[:16]
