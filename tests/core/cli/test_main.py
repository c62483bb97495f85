"""``iarmem`` as a user meets it: what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from PIL import Image

COMMANDS = ["demo", "fetch", "localize", "mitigate", "models", "plugins"]
COMMON = ["--weights", "--tokenizer", "--device", "--dtype", "--batch-size", "--seed", "--json"]


def iarmem(*arguments: str | Path, columns: int = 300) -> subprocess.CompletedProcess[str]:
    """Run ``iarmem`` in a process of its own, wide enough that no line is broken."""
    command = [sys.executable, "-m", "iarmem_plugin", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": f"{columns}", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def localize(
    folder: Path, *options: str | Path, model: str = "var-organism"
) -> subprocess.CompletedProcess[str]:
    out = ("--out", folder / "out")
    return iarmem("localize", model, "--images", folder / "images", *out, *options)


def draw_pictures(folder: Path) -> None:
    images = folder / "images" / "0"
    images.mkdir(parents=True)
    for shade in (60, 190):
        Image.new("RGB", (32, 32), (shade, 0, 255 - shade)).save(images / f"{shade}.png")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder that holds ``images`` with two pictures of class 0."""
    draw_pictures(tmp_path)
    return tmp_path


def test_the_version_is_the_installed_one() -> None:
    assert iarmem("--version").stdout == f"iarmem {version('iarmem')}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_command(command: str) -> None:
    assert f" {command} " in iarmem("--help").stdout


@pytest.mark.parametrize("command", ["localize", "mitigate"])
def test_both_jobs_take_the_common_options(command: str) -> None:
    shown = iarmem(command, "--help").stdout
    assert [option for option in COMMON if f"{option} " not in shown] == []


def test_models_lists_the_bundled_organism_with_its_size() -> None:
    listed = json.loads(iarmem("models", "--json").stdout)["models"]
    organism = next(one for one in listed if one["name"] == "var-organism")
    assert organism["family"] == "var"
    assert min(organism["blocks"], organism["neurons"], organism["parameters"]) > 0


@pytest.mark.parametrize("name", ["var-d16", "var-d20", "var-d24", "var-d30"])
def test_models_lists_the_published_models(name: str) -> None:
    assert name in iarmem("models").stdout


def test_models_fits_a_terminal_of_80_columns() -> None:
    shown = iarmem("models", columns=80).stdout
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "rar-xxl rar 40 6,144 1,498.5 M 256 not checked no" in lines
    assert "rar-xxl rar_xxl.bin yucornetto/RAR" in lines
    assert "maskgit-vqgan-imagenet-f16-256.bin fun-research/TiTok" in lines


def test_plugins_says_what_each_does_and_where_it_is_from() -> None:
    listed = json.loads(iarmem("plugins", "--json").stdout)
    unitmem = next(one for one in listed["plugins"] if one["name"] == "unitmem")
    assert (unitmem["kind"], unitmem["plugin"]) == ("metric", "iarmem_metrics.unitmem")
    assert [one for one in listed["plugins"] if not one["does"]] == []
    assert listed["skipped"] == {}


@pytest.mark.parametrize("arguments", [("bogus",), ("localize",), ("demo", "--bogus")])
def test_wrong_usage_ends_with_code_2(arguments: tuple[str, ...]) -> None:
    done = iarmem(*arguments)
    assert (done.returncode, done.stdout) == (2, "")


def test_a_negative_seed_is_refused(pictures: Path) -> None:
    done = localize(pictures, "--seed", "-1")
    assert done.returncode == 2
    assert "'--seed'" in done.stderr


def assert_plain_error(done: subprocess.CompletedProcess[str], expected: str) -> None:
    """Check for code 2, nothing on stdout, one line on stderr."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("Error: ")
    assert expected in lines[0]


def test_an_unknown_model_lists_the_models(pictures: Path) -> None:
    assert_plain_error(localize(pictures, model="var-d99"), "no model named 'var-d99'; installed: ")


def test_an_unknown_metric_lists_the_metrics(pictures: Path) -> None:
    done = localize(pictures, "--metric", "fame")
    assert_plain_error(done, "no metric named 'fame'; installed: mean-activation, random, unitmem")


def test_a_published_model_without_weights_says_which_file_is_wanted(pictures: Path) -> None:
    assert_plain_error(localize(pictures, model="var-d16"), "--weights")


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert_plain_error(localize(tmp_path), str(tmp_path / "images"))


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert_plain_error(localize(tmp_path), str(tmp_path / "images"))


def test_a_corrupt_picture_is_named_and_nothing_is_written(pictures: Path) -> None:
    (pictures / "images" / "0" / "broken.png").write_bytes(b"no picture")
    assert_plain_error(localize(pictures), "0/broken.png")
    assert not (pictures / "out").exists()


def test_a_corrupt_picture_is_skipped_on_request(pictures: Path) -> None:
    (pictures / "images" / "0" / "broken.png").write_bytes(b"no picture")
    done = localize(pictures, "--on-bad-image", "skip", "--views", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metric"] == "unitmem"
    assert "Warning: skipped 1 of 3 pictures: 0/broken.png\n" in done.stderr


def test_many_skipped_pictures_are_counted_and_five_are_named(pictures: Path) -> None:
    for number in range(7):
        (pictures / "images" / "0" / f"bad{number}.png").write_bytes(b"no picture")
    done = localize(pictures, "--on-bad-image", "skip", "--device", "warp")
    names = ", ".join(f"0/bad{number}.png" for number in range(5))
    expected = f"Warning: skipped 7 of 9 pictures: {names} and 2 more"
    assert done.stderr.splitlines()[0] == expected


def test_class_folders_that_are_no_indices_are_refused_with_the_reason(pictures: Path) -> None:
    (pictures / "images" / "0").rename(pictures / "images" / "faces")
    assert_plain_error(localize(pictures), "faces")


def test_a_classes_file_maps_the_folders(pictures: Path) -> None:
    (pictures / "images" / "0").rename(pictures / "images" / "faces")
    (pictures / "classes.json").write_text('{"faces": 3}')
    classes = ("--classes", pictures / "classes.json")
    done = localize(pictures, *classes, "--views", "2", "--json")
    assert done.returncode == 0, done.stderr


def test_a_band_takes_the_place_of_the_models_scales(pictures: Path) -> None:
    bands = ("--band", "first=1", "--band", "second scale=2-5")
    done = localize(pictures, *bands, "--views", "2", "--json")
    rows = json.loads(done.stdout)["by_block_and_scale"]
    assert {len(row) for row in rows} == {2}


def test_text_that_is_no_band_is_refused_before_the_model_is_loaded(pictures: Path) -> None:
    assert_plain_error(localize(pictures, "--band", "x=0-9x"), "not a span of tokens")


def test_json_is_all_that_localize_prints_on_stdout(pictures: Path) -> None:
    done = localize(pictures, "--views", "2", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert Path(result["out"]).is_dir()
    assert all(
        len(row) == len(result["by_block_and_scale"][0]) for row in result["by_block_and_scale"]
    )


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds ``images`` and, in ``out``, scores of them."""
    folder = tmp_path_factory.mktemp("scored")
    draw_pictures(folder)
    done = localize(folder, "--views", "2")
    assert done.returncode == 0, done.stderr
    return folder


def mitigate(folder: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    scores = ("--scores", folder / "out", "--images", folder / "images")
    return iarmem("mitigate", "var-organism", *scores, "--out", folder / "report", *options)


def test_scores_of_another_model_are_refused_before_candidates_are_ranked(scored: Path) -> None:
    places = ("--images", scored / "images", "--out", scored / "refused")
    done = iarmem("mitigate", "rar-organism", "--scores", scored / "out", *places)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()  # no bar before it
    assert line.endswith("they were made with another model")
    assert not (scored / "refused").exists()


@pytest.mark.parametrize("fraction", ["0", "-0.1", "1.5", "nan"])
def test_a_fraction_outside_its_range_is_refused(scored: Path, fraction: str) -> None:
    assert_plain_error(mitigate(scored, "--fraction", fraction), "fraction")
    assert not (scored / "report").exists()


def test_mitigate_says_which_pictures_it_skipped(pictures: Path) -> None:
    (pictures / "images" / "0" / "broken.png").write_bytes(b"no picture")
    done = mitigate(pictures, "--on-bad-image", "skip")  # ends at the scores, which are not there
    assert done.stderr.splitlines()[0] == "Warning: skipped 1 of 3 pictures: 0/broken.png"


def test_an_unknown_intervention_lists_the_interventions(pictures: Path) -> None:
    done = mitigate(pictures, "--intervention", "pray")
    assert_plain_error(done, "no intervention named 'pray'; installed: scale-weights")


def test_scores_that_are_not_there_are_refused(pictures: Path) -> None:
    assert_plain_error(mitigate(pictures), str(pictures / "out"))
