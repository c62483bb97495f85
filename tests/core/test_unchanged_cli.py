"""What `iarmem` prints, writes and refuses is what it was; see tests/golden/unchanged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import metadata
from importlib.util import module_from_spec, spec_from_file_location
from inspect import unwrap
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import typer
from click import unstyle
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

import iarmem_plugin as iarmem

GOLDEN = Path(__file__).parents[1] / "golden" / "unchanged"
_spec = spec_from_file_location("compare_report", GOLDEN / "compare_report.py")
assert _spec is not None
assert _spec.loader is not None
golden = module_from_spec(_spec)
_spec.loader.exec_module(golden)

(_command,) = metadata.entry_points(group="console_scripts", name="iarmem")  # wherever it lies
APP = _command.load()
PLAIN = {"COLUMNS": "100", "NO_COLOR": "1", "FORCE_COLOR": None, "TERMINAL_WIDTH": None}


def commands() -> dict[str, list[str]]:
    """Return every command's words by its name in the golden files."""
    found: dict[str, list[str]] = {"iarmem": []}
    for name, one in typer.main.get_command(APP).commands.items():  # type: ignore[attr-defined]  # a group
        found[name] = [name]
        for inner in getattr(one, "commands", ()):
            found[f"{name} {inner}"] = [name, inner]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder that is the working directory, and a hub's cache that is empty."""
    path = tmp_path_factory.mktemp("unchanged")
    main = APP.registered_callback
    with pytest.MonkeyPatch.context() as patch:
        # as users run it: the gate's type checks mind that typer gives None for `--version`
        patch.setattr(main, "callback", unwrap(main.callback))
        patch.chdir(path)  # so that messages name no place of this machine
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(path / "hub"))
        # which reads every installed distribution anew, half a second in each run
        patch.setattr(metadata, "packages_distributions", cache(metadata.packages_distributions))
        yield path


Run = Callable[..., Result]


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(APP, arguments, prog_name="iarmem", env=PLAIN)

    return run


def printed(done: Result, folder: Path) -> list[Any]:
    """Return the lines of JSON on stdout, with what differs between machines masked."""
    assert done.exit_code == 0, done.stderr
    text = golden.without_modules(done.stdout.replace(str(folder), "<folder>"))
    return [golden.masked(json.loads(line)) for line in text.splitlines()]


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def draw(organism: Any, positions: np.ndarray, folder: Path) -> None:
    """Write an organism's pictures as PNG, in a folder for each class."""
    for position in positions:
        file = folder / str(organism.pictures.labels[position]) / f"{position}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        organism.pictures.load(int(position)).save(file)


@pytest.fixture(scope="module")
def pictures(folder: Path) -> Path:
    """Folders of the organism's pictures: to score, to try, and held out."""
    organism = iarmem.load("var-organism").adapter.variant.organism()
    often = np.flatnonzero(organism.group == "canary 1360")
    members = np.flatnonzero(organism.group == "member, distinct")[::30]
    unseen = np.flatnonzero(organism.group == "held-out")[:8]
    draw(organism, np.concatenate((often[:4], members)), folder / "images")
    draw(organism, np.concatenate((often[:4], members[:2])), folder / "candidates")
    draw(organism, unseen, folder / "held-out")
    return folder


@pytest.fixture(scope="module")
def localized(run: Run, pictures: Path) -> tuple[Result, Result]:
    """What is printed without a store and two metrics, and with a store and two bands."""
    common = "localize var-organism --images images --json"
    several = f"{common} --metric unitmem --metric mean-activation --views 2 --out scores"
    bands = "--band a=1-16 --band b=64"
    kept = f"{common} --store x.zarr --slab 4 --views 1 {bands} --out kept"
    return run(*several.split()), run(*kept.split())


@pytest.mark.parametrize("command", ["models", "plugins"])
def test_what_is_installed_is_listed_as_before(run: Run, folder: Path, command: str) -> None:
    assert golden.same("json.json", printed(run(command, "--json"), folder), command) == []


def test_localize_prints_and_writes_what_it_did(
    localized: tuple[Result, Result], folder: Path
) -> None:
    printed_by = [printed(done, folder) for done in localized]
    found = {
        "several metrics": {"printed": printed_by[0], "files": files(folder / "scores")},
        "a store and bands": {"printed": printed_by[1], "files": files(folder / "kept")},
        "images.txt": (folder / "scores" / "images.txt").read_text(),
    }
    assert golden.same("json.json", found, "localize") == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (
            "held out",
            "--candidates candidates --held-out held-out --few-held-out --random-sets 1",
        ),
        ("ranked", "--per-class 1 --random-sets 0 --intervention zero --check-batching 1"),
    ],
)
@pytest.mark.filterwarnings("ignore:the threshold .* was fixed on 4 held-out images")
@pytest.mark.usefixtures("localized")
def test_mitigate_prints_and_writes_what_it_did(
    run: Run, folder: Path, name: str, options: str
) -> None:
    places = ("--scores", "scores", "--images", "images", "--out", f"report {name}")
    done = run("mitigate", "var-organism", *places, *options.split(), "--json")
    found = {"printed": printed(done, folder), "files": files(folder / f"report {name}")}
    assert golden.same("json.json", found, f"mitigate, {name}") == []


@pytest.mark.parametrize("words", [("info",), ("verify",), ("verify", "--deep")])
@pytest.mark.usefixtures("localized")
def test_a_store_is_described_as_before(run: Run, folder: Path, words: tuple[str, ...]) -> None:
    (found,) = printed(run("store", *words, "x.zarr", "--json"), folder)
    for model in found.get("models", ()):
        assert re.fullmatch("[0-9a-f]{64}", model["capture_fingerprint"])
        model["capture_fingerprint"] = golden.ANY  # has the release in it
        model["bytes"] = golden.ANY  # of compressed activations
    assert golden.same("json.json", found, f"store {' '.join(words)}") == []


def test_every_command_has_its_help_in_the_golden_files() -> None:
    assert sorted(commands()) == sorted(file.stem for file in (GOLDEN / "help").iterdir())


@pytest.mark.parametrize("name", commands())
def test_help_is_what_it_was(run: Run, name: str) -> None:
    done = run(*commands()[name], "--help")
    assert done.exit_code == 0
    shown = [line.rstrip() for line in unstyle(done.stdout).splitlines()]
    file = GOLDEN / "help" / f"{name}.txt"
    if golden.MAKES:
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(shown) + "\n", encoding="utf-8")
        pytest.fail(f"{file.name} was made anew; see `git diff`")
    assert shown == file.read_text(encoding="utf-8").splitlines()


LOCALIZE = "localize var-organism --out new --images"
MITIGATE = "mitigate var-organism --scores scores --out new --images images"
REFUSED = {
    "an unknown model": "localize var-d99 --images images --out new",
    "weights that are not named": "localize var-d16 --images images --out new",
    "weights of any size that are not named": "localize rar --images images --out new",
    "a tokenizer for an organism": f"{LOCALIZE} images --tokenizer faces/a/0.png",
    "an unknown metric": f"{LOCALIZE} images --metric fame",
    "a metric given twice": f"{LOCALIZE} images --metric unitmem --metric unitmem",
    "no such folder of images": f"{LOCALIZE} nowhere",
    "an empty folder of images": f"{LOCALIZE} empty",
    "folders that are no classes": f"{LOCALIZE} faces",
    "a picture that is none": f"{LOCALIZE} broken",
    "a root without a list": f"{LOCALIZE} images --image-root images",
    "text that is no band": f"{LOCALIZE} images --band x=0-9x",
    "a band of tokens that are not there": f"{LOCALIZE} images --band x=1-9999",
    "bits without a store": f"{LOCALIZE} images --keep-bits 13",
    "too many bits": f"{LOCALIZE} images --keep-bits 24",
    "other settings than the store's": f"{LOCALIZE} images --store x.zarr --views 1 --seed 1",
    "a store that is none": f"{LOCALIZE} images --store images",
    "an output folder of others": "localize var-organism --images images --out images",
    "a share of no images": f"{LOCALIZE} images --images-fraction 0",
    "a negative seed": f"{LOCALIZE} images --seed -1",
    "an unknown precision": f"{LOCALIZE} images --dtype float8",
    "no scores": "mitigate var-organism --scores nowhere --images images --out new",
    "another model's scores": "mitigate rar-organism --scores scores --images images --out new",
    "a fraction above 1": f"{MITIGATE} --fraction 1.5",
    "an unknown intervention": f"{MITIGATE} --intervention pray",
    "an option too many": f"{MITIGATE} --intervention zero:factor=0.5",
    "an unknown selector": f"{MITIGATE} --selector best",
    "an unknown similarity": f"{MITIGATE} --similarity taste",
    "a similarity without its file": f"{MITIGATE} --similarity sscd",
    "a similarity that takes no file": f"{MITIGATE} --similarity correlation:file=a.pt",
    "a report among other files": (
        "mitigate var-organism --scores scores --images images --out images"
    ),
    "no such store": "store info nowhere.zarr",
    "a folder that is no store": "store info images",
    "an unknown model in a store": "store slice x.zarr --model other --out new.nc",
    "a slice of another kind": "store slice x.zarr --out new.csv",
    "no such neuron": "store slice x.zarr --neuron 9999 --out new.nc",
    "no such slab": "store invalidate x.zarr --slab 99",
    "a sheet of another kind": (
        "store top x.zarr --block 0 --neuron 0 --images images --out new.jpg"
    ),
    "pictures that are not those of the store": (
        "store top x.zarr --block 0 --neuron 0 --images empty --out new.png"
    ),
    "a fetch of what is bundled": "fetch var-organism",
    "a fetch of an unknown model": "fetch var-d99",
    "a demo of no organism": "demo --model var-d16 --out new",
    "a demo in a folder of others": "demo --out images",
    "no such command": "bogus",
    "no such option": "demo --bogus",
    "no arguments": "localize",
}


@pytest.fixture(scope="module")
def unusable(folder: Path) -> None:
    """Folders that are refused."""
    (folder / "empty").mkdir()
    (folder / "faces" / "a").mkdir(parents=True)
    (folder / "broken" / "0").mkdir(parents=True)
    Image.new("RGB", (32, 32), "red").save(folder / "faces" / "a" / "0.png")
    (folder / "broken" / "0" / "0.png").write_bytes(b"no picture")


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.usefixtures("localized", "unusable")
def test_what_cannot_be_is_refused_in_the_words_it_was(run: Run, folder: Path, name: str) -> None:
    done = run(*REFUSED[name].split())
    said = golden.without_modules(unstyle(done.stderr).replace(str(folder), "<folder>"))
    lines = [line.rstrip() for line in said.splitlines() if "━" not in line]  # a bar has the time
    found = {"command": f"iarmem {REFUSED[name]}", "code": done.exit_code, "stderr": lines}
    assert (done.stdout, done.exit_code) == ("", 2), done.stderr
    assert golden.same("refusals.json", found, name) == []
    assert not [path.name for path in folder.glob("new*")]


def test_every_refusal_in_the_golden_file_is_tried() -> None:
    assert list(json.loads((GOLDEN / "refusals.json").read_text())) == list(REFUSED)
