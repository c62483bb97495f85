"""An export at full size, on weights made by a formula: the format, and the memory it takes.

Two minutes a model on two cores; its anonymous memory (`RssAnon`: what it really holds, the
system's cache of mapped files left out) is watched while it exports.
``pytest -m slow tests/adapters/test_full_size_export.py -s`` shows what each took.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from iarmem_adapters.rar import loading as rar_loading
from iarmem_adapters.rar.transformer import RARTransformer
from iarmem_adapters.var import loading as var_loading
from iarmem_adapters.var.transformer import VARTransformer
from iarmem_plugin import plugins

MOST = 0.35  # of the weights: what is edited, what is compared at a time, and torch itself
ITSELF = 500 * 2**20  # bytes that the program takes without weights

EXPORT = """
import json, sys, threading, time
from iarmem_plugin import export

def resident():
    rows = dict(row.split(":") for row in open("/proc/self/status").read().splitlines())
    return int(rows["RssAnon"].split()[0]) * 1024

def watch():
    while not done.is_set():
        peak[0] = max(peak[0], resident())
        time.sleep(0.002)

model, weights, out, neurons = sys.argv[1:]
peak, done = [0], threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
started = time.monotonic()
how = "scale-weights:factor=0.5"
export(model, out, weights=weights, neurons=neurons, intervention=how)
done.set()
watcher.join()
print(json.dumps({"peak": peak[0], "seconds": time.monotonic() - started}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["var-d16", "rar-b"])
def test_a_full_size_export_differs_in_its_rows_and_holds_no_second_copy(
    name: str, fill: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loading, kind, path = {
        "var-d16": (var_loading, VARTransformer, "blocks.{}.ffn.fc1.weight"),
        "rar-b": (rar_loading, RARTransformer, "blocks.{}.mlp.fc1.weight"),
    }[name]
    weights, listed = tmp_path / "weights.pth", tmp_path / "list.csv"
    torch.save(fill.fill_state_dict(kind(loading.configs(name)[0])).state_dict(), weights)
    variant = plugins.find_variant(name)[1]
    shape = (variant.blocks, variant.neurons)
    chosen = np.random.default_rng(0).random(shape) < 0.1
    rows = "".join(f"{block},{neuron}\n" for block, neuron in np.argwhere(chosen).tolist())
    listed.write_text(f"block,neuron\n{rows}")
    original = torch.load(weights, mmap=True, weights_only=True)
    for ending in ("pth", "safetensors"):
        out = tmp_path / f"out-{ending}.{ending}"
        words = [sys.executable, "-c", EXPORT, name, *map(str, (weights, out, listed))]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        took, size = json.loads(done.stdout), weights.stat().st_size
        with capsys.disabled():
            print(f"\n{name} {ending}: {took['seconds']:.0f} s, ", end="")
            print(f"{took['peak'] / 1e6:.0f} MB anonymous, weights of {size / 1e6:.0f} MB")
        assert took["peak"] < ITSELF + MOST * size
        found = (
            load_file(out)
            if ending == "safetensors"
            else torch.load(out, mmap=True, weights_only=True)
        )
        assert list(found) == list(original)
        for block, mine in enumerate(torch.from_numpy(chosen)):
            before, after = (one.pop(path.format(block)) for one in (dict(original), found))
            assert torch.equal(after[mine], before[mine] * 0.5)
            assert torch.equal(after[~mine], before[~mine])
        assert all(torch.equal(found[key], original[key]) for key in found)
        out.unlink()
