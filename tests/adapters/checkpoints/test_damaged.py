"""Bytes of weight files changed at random: the right weights, or one plain line; never others.

What is changed is all but the numbers themselves, of which a safetensors file has no checksum.
"""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from iarmem_adapters.checkpoints.files import file_facts, read_weights
from iarmem_adapters.checkpoints.filling import load_strictly
from iarmem_adapters.checkpoints.identify import select
from iarmem_adapters.checkpoints.sizes import infer
from iarmem_adapters.var.sizes import TRANSFORMER, transformer_sizes
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_plugin.errors import IarmemError, WeightsError

State = dict[str, Tensor]
SIZES = VARConfig(1, 8, 1, (1, 2), num_classes=2, vocab_size=4, code_width=4)


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    return dict(VARTransformer(SIZES).state_dict())


@pytest.fixture(scope="module")
def network() -> VARTransformer:
    with torch.device("meta"):
        return VARTransformer(SIZES)


def load(path: Path, network: VARTransformer) -> State:
    """Load a file into the network, as an adapter does into a new one."""
    found = select(read_weights(path), TRANSFORMER).state
    infer(transformer_sizes, found, path, "var")
    load_strictly(network, found, path=path, what="var", device="cpu", dtype=torch.float32)
    file_facts(path)
    return dict(network.state_dict())


def header(path: Path) -> list[int]:
    """Return where the bytes of a safetensors file are that are no numbers."""
    return list(range(8 + int.from_bytes(path.read_bytes()[:8], "little")))


def records(path: Path) -> list[int]:
    """Return where the bytes of a zip archive are that are no tensor's numbers, nor padding."""
    content = path.read_bytes()
    numbers: set[int] = set()
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if "/data/" in entry.filename:
                lengths = content[entry.header_offset + 26 : entry.header_offset + 30]
                name, extra = (int.from_bytes(two, "little") for two in (lengths[:2], lengths[2:]))
                begin = entry.header_offset + 30 + name
                numbers |= set(range(begin + 4, begin + extra + entry.file_size))
    return [place for place in range(len(content)) if place not in numbers]


def mutated(content: bytes, places: list[int], seed: int) -> bytes:
    draw, changed = random.Random(seed), bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 5])):
        place, width = draw.choice(places), draw.randrange(1, 17)
        if draw.random() < 0.5:
            changed[place] ^= 1 << draw.randrange(8)
        elif draw.random() < 0.5:
            changed[place] = draw.randrange(256)
        else:  # bytes of another place
            other = draw.choice(places)
            changed[place : place + width] = changed[other : other + width]
    return bytes(changed)


FORMATS = [(save_file, header), (torch.save, records)]


@pytest.mark.parametrize(
    "seeds",
    [range(50), pytest.param(range(50, 1050), marks=pytest.mark.slow)],
    ids=["few", "many"],
)
@pytest.mark.parametrize(("save", "places"), FORMATS, ids=["safetensors", "zip"])
def test_a_file_with_changed_bytes_gives_its_weights_or_a_line(
    state: State,
    network: VARTransformer,
    tmp_path: Path,
    save: Callable[[State, Path], None],
    places: Callable[[Path], list[int]],
    seeds: range,
) -> None:
    path = tmp_path / "file"
    save(state, path)
    content, changeable = path.read_bytes(), places(path)
    for seed in seeds:
        path.write_bytes(mutated(content, changeable, seed))
        told = ""
        try:
            loaded = load(path, network)
        except IarmemError as error:
            told = str(error).replace(str(path), "")
        else:
            assert all(torch.equal(loaded[name], state[name]) for name in state), seed
        assert "\n" not in told, seed
        assert len(told) <= 380, seed


@pytest.mark.parametrize("change", [0, 1])
def test_numbers_that_changed_in_a_file_of_torch_save_are_noticed(
    state: State, network: VARTransformer, tmp_path: Path, change: int
) -> None:
    path = tmp_path / "file.pth"
    torch.save(state, path)
    content = bytearray(path.read_bytes())
    content[content.index(state["head.weight"].numpy().tobytes())] ^= change
    path.write_bytes(content)
    if not change:
        assert load(path, network).keys() == state.keys()
        return
    with pytest.raises(WeightsError, match=r"file\.pth is damaged: Bad CRC-32 for file"):
        load(path, network)


def test_a_file_without_checksums_loads(
    state: State, network: VARTransformer, tmp_path: Path
) -> None:
    path = tmp_path / "file.pth"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(load(path, network)["head.weight"], state["head.weight"])
