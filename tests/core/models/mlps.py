"""MLPs of every kind, put into the tiny model's blocks, each with its part of a layout."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from iarmem_plugin.interfaces import MLP, Reads, Writes
from iarmem_plugin.testing.tiny import TinyAdapter

PREFIX, WIDTH, NEURONS = "blocks.{block}.ffn", 32, 48


class Plain(nn.Module):
    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, NEURONS, bias), nn.Linear(NEURONS, WIDTH, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Turned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c_fc, self.c_proj = Conv1D(NEURONS, WIDTH), Conv1D(WIDTH, NEURONS)
        nn.init.normal_(self.c_fc.weight, std=0.2)
        nn.init.normal_(self.c_fc.bias, std=0.2)
        nn.init.normal_(self.c_proj.weight, std=0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.c_fc(x)
        return self.c_proj(hidden * torch.sigmoid(1.702 * hidden))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(WIDTH, NEURONS, bias=False) for _ in range(2))
        self.down = nn.Linear(NEURONS, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Fused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up = nn.Linear(WIDTH, 2 * NEURONS)
        self.down = nn.Linear(NEURONS, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


def _plain(reads: str, writes: str, *, turned: bool = False) -> MLP:
    read = Reads(f"{PREFIX}.{reads}", features=1 if turned else 0)
    return MLP(Writes(f"{PREFIX}.{writes}", features=0 if turned else 1), {"fc1": read})


GATED = MLP(
    Writes(f"{PREFIX}.down"), {"gate": Reads(f"{PREFIX}.gate"), "up": Reads(f"{PREFIX}.up")}
)
FUSED = MLP(
    Writes(f"{PREFIX}.down"),
    {"gate": Reads(f"{PREFIX}.gate_up"), "up": Reads(f"{PREFIX}.gate_up", first=NEURONS)},
)
KINDS = {
    "plain": (Plain, _plain("fc1", "fc2")),
    "bias-free": (lambda: Plain(bias=False), _plain("fc1", "fc2")),
    "Conv1D": (Turned, _plain("c_fc", "c_proj", turned=True)),
    "gated": (Gated, GATED),
    "fused": (Fused, FUSED),
}


def with_mlps(kind: str, mlp: MLP | None = None) -> TinyAdapter:
    """Return the tiny model with MLPs of a kind, and their layout, or another one."""
    make, known = KINDS[kind]
    adapter = TinyAdapter.make()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for block in adapter.network.blocks:
            block.ffn = make()
    adapter.layout = replace(adapter.layout, neurons_per_block=NEURONS, mlp=mlp or known)
    return adapter
