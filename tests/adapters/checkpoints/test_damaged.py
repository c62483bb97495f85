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

from iarmem_adapters.var.adapter import VARAdapter
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_plugin.errors import IarmemError, WeightsError

State = dict[str, Tensor]
SIZES = VARConfig(1, 8, 1, (1, 2), num_classes=2, vocab_size=4, code_width=4)
TOKENIZER = VQVAEConfig((1, 2), ch=8, ch_mult=(1,), res_blocks=1, vocab_size=4, code_width=4)


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    return dict(VARTransformer(SIZES).state_dict())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.safetensors"
    save_file(MultiScaleVQVAE(TOKENIZER).state_dict(), path)
    return path


def load(path: Path, tokenizer: Path) -> State:
    adapter = VARAdapter.load(
        "var", weights=path, tokenizer=tokenizer, device="cpu", dtype=torch.float32
    )
    return dict(adapter.network.state_dict())


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
    tokenizer: Path,
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
        try:
            loaded = load(path, tokenizer)
        except IarmemError as error:
            assert "\n" not in str(error), seed
            assert len(str(error).replace(str(path), "")) <= 380, seed
        else:
            assert all(torch.equal(loaded[name], state[name]) for name in state), seed


@pytest.mark.parametrize("change", [0, 1])
def test_numbers_that_changed_in_a_file_of_torch_save_are_noticed(
    state: State, tokenizer: Path, tmp_path: Path, change: int
) -> None:
    path = tmp_path / "file.pth"
    torch.save(state, path)
    content = bytearray(path.read_bytes())
    content[content.index(state["head.weight"].numpy().tobytes())] ^= change
    path.write_bytes(content)
    if not change:
        assert load(path, tokenizer).keys() == state.keys()
        return
    with pytest.raises(WeightsError, match=r"file\.pth is damaged: Bad CRC-32 for file"):
        load(path, tokenizer)


def test_a_file_without_checksums_loads(state: State, tokenizer: Path, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(load(path, tokenizer)["head.weight"], state["head.weight"])
