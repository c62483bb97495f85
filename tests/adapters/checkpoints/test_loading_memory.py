"""Loading the largest released models takes little more memory than their weights.

Each run is a process of its own that loads a file of full size and watches, while it loads, its
anonymous memory (`RssAnon`: what it really holds) and its file-mapped pages (`RssFile`: the
system's cache of the file, which it takes back when it needs them).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from iarmem_adapters.rar import loading as rar_loading
from iarmem_adapters.rar.tokenizer import MaskGITVQGAN
from iarmem_adapters.rar.transformer import RARTransformer
from iarmem_adapters.var import loading as var_loading
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE
from iarmem_adapters.var.transformer import VARTransformer

STATUS = Path("/proc/self/status")
BOUND = 1.15  # of the weights in their final precision

LOAD = """
import json, sys, threading, time
from pathlib import Path

import torch

from iarmem_plugin import plugins
from iarmem_adapters.rar import loading
from iarmem_adapters.var import loading

def resident():
    rows = dict(row.split(":") for row in open("/proc/self/status").read().splitlines())
    return [int(rows[key].split()[0]) * 1024 for key in ("RssAnon", "RssFile")]

def watch():
    while not done.is_set():
        peaks[:] = map(max, peaks, resident())
        time.sleep(0.002)

name, weights, tokenizer, dtype = sys.argv[1:]
before = resident()
peaks, done = list(before), threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
started = time.monotonic()
adapter = plugins.find_variant(name)[0].load(
    name,
    files={"weights": Path(weights), "tokenizer": Path(tokenizer)},
    device="cpu",
    dtype=getattr(torch, dtype),
)
seconds = time.monotonic() - started
done.set()
watcher.join()
entries = [*adapter.network.state_dict().values(), *adapter.tokenizer.state_dict().values()]
held = {
    "weights": sum(entry.nbytes for entry in entries),
    "anonymous": peaks[0] - before[0],
    "file": peaks[1] - before[1],
    "seconds": seconds,
}
print(json.dumps(held))
"""


def zeros(module: nn.Module, dtype: torch.dtype, blank: Path) -> dict[str, Tensor]:
    """Return entries of a network's names and shapes that take no memory: a file's hole."""
    state = {}
    for key, entry in module.state_dict().items():
        kind = dtype if entry.is_floating_point() else entry.dtype
        size = entry.numel() * kind.itemsize
        storage = torch.UntypedStorage.from_file(str(blank), shared=False, nbytes=size)
        state[key] = torch.empty(0, dtype=kind).set_(storage, 0, entry.shape)
    return state


@pytest.fixture(scope="module", params=["var-d30 float16", "rar-xxl float32"])
def full_size(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path, Path]]:
    """The name and the two files, of full size, of a model; the files go as soon as may be."""
    name, dtype = request.param.split()
    folder = tmp_path_factory.mktemp(name)
    loading, *kinds = {
        "var-d30": (var_loading, VARTransformer, MultiScaleVQVAE),
        "rar-xxl": (rar_loading, RARTransformer, MaskGITVQGAN),
    }[name]
    with torch.device("meta"):
        modules = [kind(sizes) for kind, sizes in zip(kinds, loading.configs(name), strict=True)]
    largest = max(entry.numel() for module in modules for entry in module.state_dict().values())
    (folder / "blank").touch()
    with (folder / "blank").open("r+b") as file:
        file.truncate(4 * largest)
    files = (folder / "weights.pth", folder / "tokenizer.pth")
    for module, path, kind in zip(modules, files, (dtype, "float32"), strict=True):
        state = zeros(module, getattr(torch, kind), folder / "blank")
        if "lvl_1L" in state:  # the one entry that tells sizes by its values
            sides = loading.configs(name)[0].patch_nums
            levels = [level for level, side in enumerate(sides) for _ in range(side * side)]
            state["lvl_1L"] = torch.tensor([levels])
        torch.save(state, path)
    yield name, *files
    for path in files:
        path.unlink()


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="resident memory by kind is told by Linux only")
@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_loading_holds_little_more_than_the_weights(
    full_size: tuple[str, Path, Path], dtype: str
) -> None:
    command = [sys.executable, "-c", LOAD, *map(str, full_size), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    held = json.loads(done.stdout)
    ratio = held["anonymous"] / held["weights"]
    print(
        f"{full_size[0]} in {dtype}: weights {held['weights'] / 1e9:.2f} GB, anonymous peak "
        f"{held['anonymous'] / 1e9:.2f} GB ({ratio:.3f}), file-mapped {held['file'] / 1e9:.2f} GB, "
        f"{held['seconds']:.1f} s"
    )
    assert ratio <= BOUND
