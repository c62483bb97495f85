"""What is installed is listed, and the page says what to type for every model."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from iarmem_plugin import plugins

Run = Callable[..., subprocess.CompletedProcess[str]]
PAGE = Path(__file__).parents[3] / "docs" / "loading.md"


def test_models_lists_the_bundled_organism_with_its_size(iarmem: Run) -> None:
    listed = json.loads(iarmem("models", "--json").stdout)["models"]
    organism = next(one for one in listed if one["name"] == "var-organism")
    assert organism["family"] == "var"
    assert min(organism["blocks"], organism["neurons"], organism["parameters"]) > 0


@pytest.mark.parametrize("name", ["var-d16", "var-d20", "var-d24", "var-d30"])
def test_models_lists_the_published_models(name: str, iarmem: Run) -> None:
    assert name in iarmem("models").stdout


def test_models_fits_a_terminal_of_80_columns(iarmem: Run) -> None:
    shown = iarmem("models", columns=80).stdout
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "rar-xxl rar 40 × 6,144 1,498.5 M 256 not checked no" in lines
    assert "rar-xxl rar_xxl.bin yucornetto/RAR" in lines
    assert "maskgit-vqgan-imagenet-f16-256.bin fun-research/TiTok" in lines


def test_plugins_says_what_each_does_and_where_it_is_from(iarmem: Run) -> None:
    listed = json.loads(iarmem("plugins", "--json").stdout)
    unitmem = next(one for one in listed["plugins"] if one["name"] == "unitmem")
    assert (unitmem["kind"], unitmem["plugin"]) == ("metric", "iarmem_metrics.unitmem")
    assert [one for one in listed["plugins"] if not one["does"]] == []
    assert listed["skipped"] == {}


def test_a_plugin_is_shown_with_its_options(iarmem: Run) -> None:
    (shown,) = json.loads(iarmem("plugins", "scale-weights", "--json").stdout)["plugins"]
    does = "number that the weights are multiplied by"
    factor, reads = shown["options"]
    assert factor == {"name": "factor", "type": "float", "default": "0.5", "does": does}
    assert (reads["name"], reads["default"]) == ("reads", "None")
    assert (shown["kind"], shown["distribution"].partition(" ")[0]) == ("intervention", "iarmem")
    lines = [" ".join(line.split()) for line in iarmem("plugins", "sscd").stdout.splitlines()]
    assert "threshold float or none None extracted means strictly above" in lines
    assert lines[0].startswith("similarity sscd of iarmem ")


def test_all_kinds_of_one_name_are_shown(iarmem: Run) -> None:
    shown = json.loads(iarmem("plugins", "random", "--json").stdout)["plugins"]
    assert [one["kind"] for one in shown] == ["metric", "selector"]
    assert [option["name"] for option in shown[0]["options"]] == ["seed"]


def test_the_page_says_what_to_type_for_every_hosted_model() -> None:
    text = PAGE.read_text()
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    hosted = [one for _, one in plugins.variants().values() if one.repositories]
    assert len(hosted) == 9
    for one in hosted:
        weights, tokenizer = one.files.values()
        assert f"iarmem fetch {one.name} --out weights" in lines
        files = f"--weights weights/{weights} --tokenizer weights/{tokenizer}"
        places = "--images imagenet/train --out scores"
        assert f"iarmem localize {one.name} {files} {places}" in lines
        assert all(repository in text for repository in one.repositories.values())
