"""`iarmem localize` as a user meets it: what it prints where, and how it ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from iarmem_adapters import organisms
from iarmem_plugin.cli.inputs import read_whole
from iarmem_plugin.cli.options import OnBadImage, ReadingOptions
from iarmem_plugin.data.images import Images

Run = Callable[..., subprocess.CompletedProcess[str]]
Check = Callable[[subprocess.CompletedProcess[str], str], None]
FILES = organisms.weight_files("var")


def test_a_negative_seed_is_refused(pictures: Path, localize: Run) -> None:
    done = localize(pictures, "--seed", "-1")
    assert done.returncode == 2
    assert "'--seed'" in done.stderr


def test_an_unknown_model_lists_the_models(
    pictures: Path, localize: Run, assert_plain_error: Check
) -> None:
    assert_plain_error(localize(pictures, model="var-d99"), "no model named 'var-d99'; installed: ")


def test_an_unknown_metric_lists_the_metrics(
    pictures: Path, localize: Run, assert_plain_error: Check
) -> None:
    done = localize(pictures, "--metric", "fame")
    assert_plain_error(done, "no metric named 'fame'; installed: mean-activation, random, unitmem")


def test_a_published_model_without_weights_says_which_file_is_wanted(
    pictures: Path, localize: Run, assert_plain_error: Check
) -> None:
    assert_plain_error(localize(pictures, model="var-d16"), "--weights")


def test_a_folder_without_images_is_refused(
    tmp_path: Path, localize: Run, assert_plain_error: Check
) -> None:
    (tmp_path / "images").mkdir()
    assert_plain_error(localize(tmp_path), str(tmp_path / "images"))


def test_a_folder_that_is_not_there_is_refused(
    tmp_path: Path, localize: Run, assert_plain_error: Check
) -> None:
    assert_plain_error(localize(tmp_path), str(tmp_path / "images"))


def test_a_corrupt_picture_is_named_and_nothing_is_written(
    pictures: Path, localize: Run, assert_plain_error: Check
) -> None:
    (pictures / "images" / "0" / "broken.png").write_bytes(b"no picture")
    assert_plain_error(localize(pictures), "0/broken.png")
    assert not (pictures / "out").exists()


def test_a_corrupt_picture_is_skipped_on_request(pictures: Path, localize: Run) -> None:
    (pictures / "images" / "0" / "broken.png").write_bytes(b"no picture")
    done = localize(pictures, "--on-bad-image", "skip", "--views", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metric"] == "unitmem"
    assert "Warning: skipped 1 of 3 pictures: 0/broken.png\n" in done.stderr


def test_many_skipped_pictures_are_counted_and_five_are_named(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(7):
        (pictures / "images" / "0" / f"bad{number}.png").write_bytes(b"no picture")
    listed = Images.from_folder(pictures / "images")
    assert len(read_whole(listed, ReadingOptions(None, None, OnBadImage.skip, 0))) == 2
    names = ", ".join(f"0/bad{number}.png" for number in range(5))
    expected = f"Warning: skipped 7 of 9 pictures: {names} and 2 more"
    assert capsys.readouterr().err.splitlines() == [expected]


def test_class_folders_that_are_no_indices_are_refused_with_the_reason(
    pictures: Path, localize: Run, assert_plain_error: Check
) -> None:
    (pictures / "images" / "0").rename(pictures / "images" / "faces")
    assert_plain_error(localize(pictures), "faces")


def test_a_classes_file_maps_the_folders(pictures: Path, localize: Run) -> None:
    (pictures / "images" / "0").rename(pictures / "images" / "faces")
    (pictures / "classes.json").write_text('{"faces": 3}')
    classes = ("--classes", pictures / "classes.json")
    done = localize(pictures, *classes, "--views", "2", "--json")
    assert done.returncode == 0, done.stderr


def test_a_band_takes_the_place_of_the_models_scales(pictures: Path, localize: Run) -> None:
    bands = ("--band", "first=1", "--band", "second scale=2-5")
    done = localize(pictures, *bands, "--views", "2", "--json")
    rows = json.loads(done.stdout)["by_block_and_scale"]
    assert {len(row) for row in rows} == {2}


def test_text_that_is_not_a_band_is_refused_before_the_model_is_loaded(
    pictures: Path, localize: Run, assert_plain_error: Check
) -> None:
    assert_plain_error(localize(pictures, "--band", "x=0-9x"), "not a span of tokens")


def test_json_is_all_that_localize_prints_on_stdout(pictures: Path, localize: Run) -> None:
    done = localize(pictures, "--views", "2", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert Path(result["out"]).is_dir()
    assert all(
        len(row) == len(result["by_block_and_scale"][0]) for row in result["by_block_and_scale"]
    )


def files(weights: Path) -> tuple[str | Path, ...]:
    return ("--weights", weights, "--tokenizer", FILES[1])


def test_weights_of_any_size_are_localized_by_the_familys_name(
    pictures: Path, localize: Run
) -> None:
    weights = pictures / "mine.safetensors"
    kept = {k: v for k, v in load_file(FILES[0]).items() if not k.startswith("blocks.3.")}
    save_file(kept, weights)
    done = localize(pictures, *files(weights), "--views", "1", "--json", model="var")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["by_block_and_scale"]) == 3  # blocks


def test_the_wrong_weights_end_in_one_line(
    pictures: Path, localize: Run, assert_plain_error: Check
) -> None:
    done = localize(pictures, *files(FILES[0]), model="var-d16")
    expected = "holds the weights of var-organism, and var-d16 was asked for"
    assert_plain_error(done, expected)
    assert not (pictures / "out").exists()
