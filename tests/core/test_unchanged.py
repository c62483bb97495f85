"""What users keep - scores, stores, reports - is what it was; see tests/golden/unchanged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from copy import deepcopy
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import iarmem_plugin as iarmem
from iarmem_plugin.interfaces.layout import ModelLayout, Scale  # its only internal names
from iarmem_plugin.interfaces.mlp import MLP, Reads, Site, Writes

GOLDEN = Path(__file__).parents[1] / "golden" / "unchanged"
_spec = spec_from_file_location("compare_report", GOLDEN / "compare_report.py")
assert _spec is not None
assert _spec.loader is not None
golden = module_from_spec(_spec)
_spec.loader.exec_module(golden)

DIMS = ("block", "scale", "neuron", "image")
PROVENANCE = {  # made up: no model, no machine
    "model": "tiny",
    "family": "var",
    "weights_sha256": "ab" * 32,
    "tokenizer_sha256": "cd" * 32,
    "files": {"transformer": {"name": "tiny.pth", "sha256": "ef" * 32, "bytes": 12}},
    "dtype": "float32",
    "device": "cpu",
    "torch_threads": 1,
    "python": "3.11.0",
    "versions": {"iarmem": "0", "torch": "0"},
    "views": 10,
    "batch_size": 32,
    "seed": 7,
    "augmentation": {"name": "shift", "crop": 256, "ratio": 1.125},
}
OF_PROVENANCE = (
    *("tokenizer_sha256", "dtype", "torch_threads"),
    *("views", "batch_size", "seed", "augmentation"),
)
KNOWN = {
    "checkpoint_sha256": "ab" * 32,
    "adapter_version": "tiny 1.0",
    **{name: PROVENANCE[name] for name in OF_PROVENANCE},
    "provenance": PROVENANCE,
}


def layout(neurons: int, scales: int) -> ModelLayout:
    spans = [Scale(str(s), tuple(range(s * s, (s + 1) ** 2))) for s in range(scales)]
    site, fc1 = Site("b.{block}.a"), Reads("b.{block}.1")
    paths = MLP(Writes("b.{block}.2"), {"fc1": fc1}, site)
    return ModelLayout("var", 2, neurons, tuple(spans), paths, range(scales**2))


def images(count: int) -> iarmem.Images:
    """Return the last pictures of a list, so that their numbers are not their positions."""
    pixels = np.zeros((count + 3, 4, 4, 3), np.uint8)
    names = [f"n{i % 4:02d}/{i}.png" for i in range(count + 3)]
    whole = iarmem.Images.from_arrays(pixels, np.arange(count + 3) % 5, names=names)
    return whole.subset(range(3, count + 3))


def activations(count: int, neurons: int, scales: int) -> np.ndarray:
    """Return float32 multiples of 2**-24, the same on every CPU; dims as `DIMS`."""
    numbers = np.arange(2 * scales * neurons * count, dtype=np.uint64)
    mixed = (numbers * np.uint64(2654435761) + np.uint64(12345)) % np.uint64(2**24)
    return (mixed.astype(np.float64) / 2**24).astype(np.float32).reshape(2, scales, neurons, count)


def batches(values: np.ndarray, pictures: iarmem.Images, size: int) -> Iterator[xr.DataArray]:
    for low in range(0, len(pictures), size):
        part = slice(low, low + size)
        coords = {"image": pictures.ids[part], "label": ("image", pictures.labels[part])}
        yield xr.DataArray(values[..., part], dims=DIMS, coords=coords)


def fill(
    place: Path, model: str, count: int, neurons: int, scales: int, slab: int, **more: Any
) -> iarmem.ActivationStore:
    pictures = images(count)
    settings = iarmem.CaptureSettings(model, layout(neurons, scales), pictures, slab, **more)
    store = iarmem.ActivationStore.create(place, settings)
    with store.writing(model) as writer:
        for batch in batches(activations(count, neurons, scales), pictures, 5):
            writer.write(batch)
    return store


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three models: as it comes, rounded and lacking a slab, and of two tiles."""
    path = tmp_path_factory.mktemp("stores") / "x.zarr"
    fill(path, "Tiny", 21, 20, 3, 8, **KNOWN)
    fill(path, "rounded", 21, 20, 3, 8, keep_bits=13).invalidate("rounded", 1)
    fill(path, "tiles", 130, 520, 1, 128)
    return path


def contents(folder: Path) -> dict[str, Any]:
    """Return what is in metadata files, and the SHA-256 of all others, by path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        file.relative_to(folder).as_posix(): json.loads(file.read_text())
        if file.name == "zarr.json"
        else hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def test_a_stores_files_are_byte_by_byte_what_they_were(place: Path) -> None:
    assert golden.same("store.json", contents(place)) == []


def test_a_stores_files_do_not_depend_on_how_they_are_batched(place: Path, tmp_path: Path) -> None:
    pictures, values = images(21), activations(21, 20, 3)
    settings = iarmem.CaptureSettings("Tiny", layout(20, 3), pictures, 8, **KNOWN)
    store = iarmem.ActivationStore.create(tmp_path, settings)
    for slab in store.pending("Tiny"):
        part = values[..., slab * 8 : slab * 8 + 8]
        store.put("Tiny", slab, np.ascontiguousarray(part)[None])
    assert contents(tmp_path / "tiny") == contents(place / "tiny")


def test_the_settings_of_a_capture_have_the_fingerprint_that_they_had(place: Path) -> None:
    attributes = json.loads((place / "tiny" / "zarr.json").read_text())["attributes"]
    found = {name: attributes[name] for name in ("capture_settings", "capture_fingerprint")}
    assert golden.same("fingerprint.json", found, "made up") == []
    assert fingerprint(found["capture_settings"]) == found["capture_fingerprint"]


def fingerprint(settings: dict[str, Any]) -> str:
    """Work a fingerprint by hand: SHA-256 of JSON with sorted names and no spaces."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def test_scores_read_from_a_store_are_what_they_were(place: Path) -> None:
    scores = iarmem.ActivationStore.open(place).score("unitmem", "tiny")
    found = {
        "dims": list(scores.dims),
        "coordinates": {str(n): [str(d) for d in c.dims] for n, c in scores.coords.items()},
        "by_block_and_scale": scores.sum("neuron", dtype=np.float64).to_numpy().tolist(),
    }
    assert golden.same("scores.json", found, "of a store") == []


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> tuple[xr.Dataset, Path]:
    """Scores of 24 of the organism's pictures, two views each, and the store they passed."""
    place = tmp_path_factory.mktemp("captured") / "organism.zarr"
    model = iarmem.load("var-organism")
    organism = model.adapter.variant.organism
    assert organism is not None
    pictures = organism().pictures.subset(np.arange(0, 1200, 50))
    options = iarmem.CaptureOptions(views=2, seed=3, slab=16)
    return iarmem.localize(model, pictures, options=options, store=place), place


def test_scores_of_the_organism_are_what_they_were(captured: tuple[xr.Dataset, Path]) -> None:
    scores, _ = captured
    sums = scores.sum("neuron", dtype=np.float64)
    found = {
        "provenance": golden.masked(json.loads(scores.attrs["provenance"])),
        "coordinates": {str(n): [str(d) for d in c.dims] for n, c in scores.coords.items()},
        "score": sums["score"].transpose("block", "scale").to_numpy().tolist(),
        "mean_activation": sums["mean_activation"].transpose("block", "scale").to_numpy().tolist(),
        "valid": int(scores["valid"].sum()),
    }
    assert golden.same("scores.json", found, "of the organism") == []


@pytest.mark.parametrize(
    ("name", "selector", "seed"),
    [
        ("highest", iarmem.Highest(), 0),
        ("most active", iarmem.Highest(by="mean_activation"), 0),
        ("lowest", iarmem.Lowest(), 0),
        ("random", iarmem.Random(), 5),
    ],
)
def test_the_selected_neurons_are_what_they_were(
    captured: tuple[xr.Dataset, Path], name: str, selector: iarmem.Selector, seed: int
) -> None:
    neurons = selector.select(captured[0], fraction=0.1, seed=seed)
    assert golden.same("selections.json", golden.chosen(neurons), name) == []


def test_a_capture_of_the_organism_has_the_settings_that_it_had(
    captured: tuple[xr.Dataset, Path],
) -> None:
    attributes = json.loads((captured[1] / "var-organism" / "zarr.json").read_text())["attributes"]
    settings = attributes["capture_settings"]
    assert fingerprint(settings) == attributes["capture_fingerprint"]
    fixed = settings | {"adapter_version": "fixed"}  # the release's
    found = {"capture_settings": fixed, "capture_fingerprint": fingerprint(fixed)}
    assert golden.same("fingerprint.json", found, "of the organism") == []


@pytest.mark.slow
def test_the_demo_of_the_rar_organism_reports_what_it_did(tmp_path: Path) -> None:
    (command,) = entry_points(group="console_scripts", name="iarmem")
    arguments = ["demo", "--model", "rar-organism", "--out", str(tmp_path / "demo"), "--json"]
    done = CliRunner().invoke(command.load(), arguments)
    assert done.exit_code == 0, done.stderr
    file = tmp_path / "demo" / "report.json"
    assert json.loads(done.stdout) == json.loads(file.read_text())
    assert golden.same("demo-rar-organism.json", golden.read_report(file)) == []


def tampered(report: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what a broken refactor might report, and the place of it."""
    arms = "/report/arms"
    for place, change in {
        f"{arms}/1/extraction/canary 1360/extracted": lambda value: value + 1,
        f"{arms}/0/quality/0/value": lambda value: value * 1.06,
        f"{arms}/2/name": lambda value: value.upper(),
        "/report/provenance/seed": float,
        "/report/scores/by_block_and_scale/0/0": lambda value: value + 1,
        "/neurons/random 1/sha256": lambda value: value[::-1],
    }.items():
        changed = deepcopy(report)
        inner: Any = changed
        *above, last = [int(k) if k.isdigit() else k for k in place.split("/")[1:]]
        for key in above:
            inner = inner[key]
        inner[last] = change(inner[last])
        yield place, changed


@pytest.mark.parametrize("organism", ["var-organism", "rar-organism"])
def test_a_report_that_differs_is_noticed(organism: str) -> None:
    report = json.loads((GOLDEN / f"demo-{organism}.json").read_text())
    assert golden.differences(report, report) == []
    for place, changed in tampered(report):
        (line,) = golden.differences(changed, report)
        assert line.startswith(f"{place}: ")


@pytest.mark.parametrize(("same_cpu", "noticed"), [(False, 0), (True, 1)])
def test_on_the_same_cpu_a_small_change_of_quality_is_noticed(
    monkeypatch: pytest.MonkeyPatch, same_cpu: bool, noticed: int
) -> None:
    monkeypatch.setattr(golden, "SAME_CPU", same_cpu)
    report = json.loads((GOLDEN / "demo-var-organism.json").read_text())
    changed = deepcopy(report)
    changed["report"]["arms"][0]["quality"][0]["value"] *= 1.001
    assert len(golden.differences(changed, report)) == noticed


def test_a_report_with_a_setting_more_or_less_is_noticed() -> None:
    report = json.loads((GOLDEN / "demo-var-organism.json").read_text())
    changed = deepcopy(report)
    changed["report"]["new"] = changed["report"]["provenance"].pop("cost")
    assert golden.differences(changed, report) == [
        "/report/new: is new",
        "/report/provenance/cost: is gone",
    ]
