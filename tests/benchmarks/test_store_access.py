"""Opening a store of many models, reducing it with dask, and what fewer bits cost and save.

Reported, not asserted: ``pytest tests/benchmarks/test_store_access.py --benchmark-enable -s``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr

import iarmem_plugin as iarmem
from iarmem_plugin.data.images import Images
from iarmem_plugin.interfaces.layout import ModelLayout, Scale
from iarmem_plugin.interfaces.mlp import MLP, Reads, Site, Writes
from iarmem_plugin.store.store import ActivationStore

SPANS = tuple(Scale(str(number), (number,)) for number in range(4))
PATHS = MLP(Writes("{block}.c"), {"fc1": Reads("{block}.a")}, Site("{block}.b"))
LAYOUT = ModelLayout("var", 2, 512, SPANS, PATHS, range(4))


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--benchmark-enable"))


def pictures(count: int) -> Images:
    return Images.from_arrays(np.zeros((count, 1, 1, 3), np.uint8), np.zeros(count, int))


def seconds(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return each call's median CPU time, in turn within each round, after one that warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            begun = time.process_time()
            call()
            times[name].append(time.process_time() - begun)
    return {name: float(np.median(found[1:] or found)) for name, found in times.items()}


def test_opening_a_store_of_many_models(full: bool, tmp_path: Path) -> None:
    counts = (1, 10, 50) if full else (1, 2)
    for count in counts:
        for number in range(count):
            settings = iarmem.CaptureSettings(f"m{number}", LAYOUT, pictures(3))
            ActivationStore.create(tmp_path / f"{count}.zarr", settings)

    def opened(count: int) -> xr.Dataset:
        return ActivationStore.open(tmp_path / f"{count}.zarr").dataset("m0", partial="keep")

    calls = {str(count): (lambda count=count: opened(count)) for count in counts}
    for name, spent in seconds(calls, 7 if full else 0).items():
        print(f"\nopen one of {name} models: {1000 * spent:.0f} ms of CPU time")
    assert opened(counts[-1]).sizes["neuron"] == 512


def test_reducing_with_dask(full: bool, tmp_path: Path) -> None:
    count = 40 * 128 if full else 8
    slab = 128 if full else 4
    settings = iarmem.CaptureSettings("m", LAYOUT, pictures(count), slab)
    store = ActivationStore.create(tmp_path / "x.zarr", settings)
    values = np.random.default_rng(0).random((1, 2, 4, 512, slab), np.float32)
    for number in range(count // slab):
        store.put("m", number, values + np.float32(number))

    def on_dask() -> xr.DataArray:
        with dask.config.set(scheduler="synchronous"):
            return iarmem.score_on_cluster(store)

    spent = seconds({"dask": on_dask, "loop": store.score}, 5 if full else 0)
    print(f"\ndask / loop, {count // slab} slabs, UnitMem: {spent['dask'] / spent['loop']:.2f}")
    xr.testing.assert_allclose(on_dask(), store.score(), rtol=1e-12)


def test_what_fewer_bits_cost_and_save(full: bool, tmp_path: Path) -> None:
    model = iarmem.load("var-organism")
    organism = model.adapter.variant.organism().pictures
    images = organism.subset(range(256 if full else 2))
    found = {}
    for bits in (None, 13, 10):
        place = tmp_path / f"{bits}.zarr"
        kept = iarmem.StoreOptions(place, keep_bits=bits)
        iarmem.localize(model, images, options=iarmem.CaptureOptions(views=2), store=kept)
        store = ActivationStore.open(place)
        found[bits] = store.score(), store[None].stored_bytes()
    whole, raw = found[None][0], store.activation.nbytes
    for bits, (scores, size) in found.items():
        off = abs(scores - whole).max(["block", "neuron"]).to_numpy()
        moved = ", ".join(f"{one:.1e}" for one in off)
        print(f"\n{bits or 23} bits: {size / raw:.2f} of the raw size; UnitMem by scale: {moved}")
    assert found[13][1] < found[None][1]
