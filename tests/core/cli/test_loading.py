"""Weights of one's own on the command line, and the page that says what to type."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image
from safetensors.torch import load_file, save_file

from iarmem_adapters import organisms
from iarmem_plugin import plugins

PAGE = Path(__file__).parents[3] / "docs" / "loading.md"
FILES = organisms.weight_files("var")


def localize(
    folder: Path, model: str, weights: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    pictures = folder / "images" / "0"
    pictures.mkdir(parents=True)
    for shade in (60, 190):
        Image.new("RGB", (32, 32), (shade, 0, 255 - shade)).save(pictures / f"{shade}.png")
    files = ("--weights", weights, "--tokenizer", FILES[1])
    places = ("--images", folder / "images", "--out", folder / "out")
    command = [sys.executable, "-m", "iarmem_plugin", "localize", model, *files, *places, *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "300"}
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=environment
    )


def test_weights_of_any_size_are_localized_by_the_familys_name(tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    kept = {k: v for k, v in load_file(FILES[0]).items() if not k.startswith("blocks.3.")}
    save_file(kept, weights)
    done = localize(tmp_path, "var", weights, "--views", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["by_block_and_scale"]) == 3  # blocks


def test_the_wrong_weights_end_in_one_line(tmp_path: Path) -> None:
    done = localize(tmp_path, "var-d16", FILES[0])
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert "holds the weights of var-organism, and var-d16 was asked for" in line
    assert not (tmp_path / "out").exists()


def test_the_page_says_what_to_type_for_every_hosted_model() -> None:
    text = PAGE.read_text()
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    hosted = [one for _, one in plugins.variants().values() if one.repositories]
    assert len(hosted) == 9
    for one in hosted:
        weights, tokenizer = one.files
        assert f"iarmem fetch {one.name} --out weights" in lines
        files = f"--weights weights/{weights} --tokenizer weights/{tokenizer}"
        places = "--images imagenet/train --out scores"
        assert f"iarmem localize {one.name} {files} {places}" in lines
        assert all(repository in text for repository in one.repositories)
