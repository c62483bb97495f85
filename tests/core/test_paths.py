"""Every public function that takes a path takes text, too."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import iarmem_plugin
from iarmem_plugin.data.images import Images
from iarmem_plugin.data.opening import open_images
from iarmem_plugin.errors import IarmemError, InputError
from iarmem_plugin.evaluation.quality import TorchFidelity
from iarmem_plugin.jobs.demo import demo
from iarmem_plugin.models.hub import fetch
from iarmem_plugin.stages import Stages
from iarmem_plugin.store import ActivationStore, save_slice

FUNCTIONS = [
    *(open_images, TorchFidelity.__init__, fetch, Stages.__init__, save_slice),
    demo,
]
BY_PLUGINS = {"Adapter", "Checkpoint"}  # we call or read these, with paths


def public_functions() -> Iterator[tuple[str, Callable[..., object]]]:
    for name in set(iarmem_plugin.__all__) - BY_PLUGINS - {"__version__"}:
        value = getattr(iarmem_plugin, name)
        parts = vars(value) if inspect.isclass(value) else {"": value}
        for part in parts:
            function = getattr(value, part) if part else value
            if callable(function) and (part == "__init__" or not part.startswith("_")):
                yield f"{name}.{part}", function
    yield from ((function.__qualname__, function) for function in FUNCTIONS)


def test_every_public_function_that_takes_a_path_says_that_it_takes_text() -> None:
    paths_alone, with_paths = [], 0
    for name, function in public_functions():
        for one in inspect.signature(function).parameters.values():
            with_paths += (says := str(one.annotation)).find("Path") >= 0
            if re.search(r"\bPath\b", says) and not re.search(r"\bstr\b", says):
                paths_alone.append(f"{name}({one.name}: {says})")
    assert paths_alone == []
    assert with_paths > 15


def made(folder: str) -> str:
    """Make a folder of pictures, a list of it and an archive, and return it."""
    (Path(folder) / "0").mkdir()
    Image.new("RGB", (4, 4)).save(Path(folder, "0", "a.png"))
    Path(folder, "classes").write_text("0 3")
    np.savez(Path(folder, "x.npz"), images=np.zeros((1, 4, 4, 3), np.uint8), labels=[0])
    return folder


def write_and_read_list(folder: str) -> int:
    Images.from_folder(made(folder)).write_list(f"{folder}/list.txt")
    again = Images.from_list(f"{folder}/list.txt", root=folder, classes=f"{folder}/classes")
    return len(again)


def save_and_load_stages(folder: str) -> int:
    Stages(folder, {"a": 1}).save("key", xr.DataTree(xr.Dataset({"x": 3})))
    return int(Stages(folder, {"a": 1}).load("key")["x"]) - 2


def write_slice(folder: str) -> int:
    save_slice(xr.DataArray([1.0], dims="image"), f"{folder}/x.npz")
    return len(list(Path(folder).iterdir()))


@pytest.mark.parametrize(
    "call",
    [
        write_and_read_list,
        lambda folder: len(Images.from_folder(made(folder), classes=f"{folder}/classes")),
        lambda folder: len(Images.from_npz(f"{made(folder)}/x.npz")),
        lambda folder: len(open_images(made(folder))),
        save_and_load_stages,
        write_slice,
    ],
)
def test_paths_may_be_text(tmp_path: Path, call: Callable[[str], int]) -> None:
    assert call(str(tmp_path)) == 1


@pytest.mark.parametrize(
    "call",
    [
        iarmem_plugin.load_scores,
        iarmem_plugin.Report.load,
        iarmem_plugin.SSCD,
        iarmem_plugin.DinoV2,
        ActivationStore.open,
        lambda path: iarmem_plugin.load("var-d16", path, path),
        lambda path: TorchFidelity(path, "Inception v3"),
        Images.from_folder,
        Images.from_list,
        Images.from_npz,
        open_images,
    ],
)
def test_a_path_that_is_not_there_is_refused_where_it_is_text(
    tmp_path: Path, call: Callable[[str], object]
) -> None:
    with pytest.raises(IarmemError, match="nowhere"):
        call(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "call",
    [
        lambda path: iarmem_plugin.save_scores(xr.Dataset(), path),
        lambda path: iarmem_plugin.Report.load(path),
        lambda path: fetch("var-d16", path),
        lambda path: demo(path),
        lambda path: save_slice(xr.DataArray(0), path),
    ],
)
def test_a_file_in_place_of_a_folder_is_refused_where_it_is_text(
    tmp_path: Path, call: Callable[[str], object]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        call(str(tmp_path / "file"))
