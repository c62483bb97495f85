"""Plans to begin with: each is a plan once it is filled in, and keeps its comments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from iarmem_plugin import InputError, read_plan
from iarmem_plugin.errors import UnknownNameError
from iarmem_plugin.jobs.plan.presets import preset_text, presets, write_preset
from iarmem_plugin.neurons.strategies import STRATEGIES

NAMES = (
    *("adversary", "baselines", "organism", "organism-look", "organism-quick"),
    *("paper", "selectors", "strategies"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what the presets name to be filled in."""
    for name in ("train", "val", "scores", "kept"):
        (tmp_path / name).mkdir()
    (tmp_path / "sscd_disc_mixup.onnx").touch()
    return tmp_path


def test_these_are_there_each_with_what_it_is() -> None:
    assert tuple(presets()) == NAMES
    assert all(len(line) > 40 and line.endswith(".") for line in presets().values())


@pytest.mark.parametrize("model", [None, "rar-organism"])
@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_a_plan(folder: Path, name: str, model: str | None) -> None:
    plan = read_plan(write_preset(name, folder / "plan.toml", model=model))
    assert plan.arms()
    if model is not None:
        assert plan.model.name == model
        assert plan.twin is None or plan.twin.name == "rar-organism-twin"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_filled_in_leaves_the_comments(name: str) -> None:
    plain, filled = preset_text(name), preset_text(name, "var-organism")
    published = r"# Published:\n(# .*\n)+"
    same = [
        re.sub(r'(?m)^name = ".*?"', "name", re.sub(published, "", one)) for one in (plain, filled)
    ]
    assert same[0] == same[1]
    assert 'name = "var-organism"' in filled


def test_the_papers_fractions_are_the_familys(folder: Path) -> None:
    fractions = {
        model: read_plan(write_preset("paper", folder / f"{model}.toml", model=model))
        .grid[0]
        .fractions
        for model in ("var-d30", "rar-xxl")
    }
    assert fractions == {"var-d30": (0.1,), "rar-xxl": (0.01, 0.05, 0.1)}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("var-d16", ["unmodified: FID 3.55 (VAR's repository"]),
        ("var-d30", ["10%: extracted 672 to 110, FID 1.97 to 2.58"]),
        ("rar-b", ["unmodified: FID 1.95 (RAR's repository"]),
        ("rar-xxl", ["1%: extracted 75 to 68", "5%: extracted 75 to 26", "10%: extracted 75 to"]),
        ("var-organism", ["nothing of this model"]),
    ],
)
def test_the_papers_preset_says_what_was_published_of_the_model(
    folder: Path, model: str, said: list[str]
) -> None:
    text = preset_text("paper", model)
    lines = re.findall(r"# Published:\n((?:# .*\n)+)", text)[0].splitlines()
    assert [line.startswith(f"# {one}") for line, one in zip(lines, said, strict=True)] == [
        True
    ] * len(said)
    assert read_plan(write_preset("paper", folder / "plan.toml", model=model)).model.name == model
    assert ('"var_d16.pth"' in text) == (model == "var-d16")


def test_the_strategies_are_all_that_were_published(folder: Path) -> None:
    plan = read_plan(write_preset("strategies", folder / "plan.toml"))
    assert list(plan.grid[0].interventions) == list(STRATEGIES.values())


def test_nothing_is_replaced(folder: Path) -> None:
    (folder / "plan.toml").write_text("mine")
    with pytest.raises(InputError, match="is there already, and is not overwritten"):
        write_preset("paper", folder / "plan.toml")
    assert (folder / "plan.toml").read_text() == "mine"
    (folder / "link.toml").symlink_to("nowhere")
    with pytest.raises(InputError, match="is a link to what is not there"):
        write_preset("paper", folder / "link.toml")
    with pytest.raises(InputError, match=r"is not a \.toml file"):
        write_preset("paper", folder / "plan.txt")


def test_what_cannot_be_filled_in_is_refused(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="no preset named 'best'; there are: adversary, bas"):
        preset_text("best")
    with pytest.raises(UnknownNameError, match="no model named 'nothing'"):
        preset_text("paper", "nothing")
    with pytest.raises(InputError, match="the preset has a twin, and var-d16 has none"):
        preset_text("organism", "var-d16")
    with pytest.raises(InputError, match=r"plan\.toml, line \d+: \[pictures\] images is 'train'"):
        (folder / "train").rmdir()
        read_plan(write_preset("paper", folder / "plan.toml"))
