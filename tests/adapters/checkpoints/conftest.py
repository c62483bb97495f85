from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iarmem_adapters.rar import loading as rar_loading
from iarmem_adapters.rar.tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
from iarmem_adapters.rar.transformer import RARConfig, RARTransformer
from iarmem_adapters.var import loading as var_loading
from iarmem_adapters.var.tokenizer import MultiScaleVQVAE, VQVAEConfig
from iarmem_adapters.var.transformer import VARConfig, VARTransformer
from iarmem_plugin import plugins
from iarmem_plugin.errors import WeightsError
from iarmem_plugin.interfaces import Adapter

VAR_SIZES = (
    VARConfig(2, 32, 2, (1, 2), num_classes=3, vocab_size=8, code_width=4),
    VQVAEConfig((1, 2), ch=8, ch_mult=(1, 2), res_blocks=1, vocab_size=8, code_width=4),
)
RAR_SIZES = (
    RARConfig(2, 32, 2, 48, num_tokens=4, vocab_size=16, num_classes=5),
    MaskGITVQGANConfig(ch=8, ch_mult=(1, 2), res_blocks=1, vocab_size=16, code_width=6),
)
VAR_LARGER = VARConfig(3, 32, 4, (1, 2), num_classes=3, vocab_size=8, code_width=4)
RAR_LARGER = RARConfig(3, 32, 4, 48, num_tokens=4, vocab_size=16, num_classes=5)
State = dict[str, Tensor]


@dataclass(frozen=True)
class Family:
    """A family at tiny size; its first two released names stand for tiny models, too."""

    name: str
    released: tuple[str, str]
    loading: ModuleType
    build: tuple[Callable[[Any], nn.Module], Callable[[Any], nn.Module]]
    sizes: tuple[Any, Any]
    larger: Any

    def load(
        self,
        weights: Path | None = Path("weights.pth"),
        tokenizer: Path | None = Path("tokenizer.pth"),
        *,
        name: str | None = None,
        **options: Any,
    ) -> Adapter:
        known = {"device": "cpu", "dtype": torch.float32} | options
        adapter = plugins.find("adapter", self.name)
        name = self.released[0] if name is None else name
        files = {"weights": weights, "tokenizer": tokenizer}
        given = {role: path for role, path in files.items() if path is not None}
        return adapter.load(name, files=given, **known)

    def refusal(self, *files: Path, **options: Any) -> str:
        with pytest.raises(WeightsError) as caught:
            self.load(*files, **options)
        return " ".join(str(caught.value).split())

    @staticmethod
    def equal(module: nn.Module, state: State) -> bool:
        loaded = module.state_dict()
        return loaded.keys() == state.keys() and all(
            torch.equal(loaded[key], state[key]) for key in state
        )


FAMILIES = {
    "var": Family(
        "var",
        ("var-d16", "var-d20"),
        var_loading,
        (VARTransformer, MultiScaleVQVAE),
        VAR_SIZES,
        VAR_LARGER,
    ),
    "rar": Family(
        "rar",
        ("rar-b", "rar-l"),
        rar_loading,
        (RARTransformer, MaskGITVQGAN),
        RAR_SIZES,
        RAR_LARGER,
    ),
}


@pytest.fixture(params=FAMILIES)
def family(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Family:
    found = FAMILIES[request.param]
    sizes = dict.fromkeys(found.loading.SIZES, found.sizes)
    sizes[found.released[1]] = (found.larger, found.sizes[1])
    known = found.loading.FAMILY
    tiny = replace(known, configs=lambda name: sizes.get(name) or known.configs(name))
    monkeypatch.setattr(found.loading, "FAMILY", tiny)
    monkeypatch.chdir(tmp_path)
    return found


@pytest.fixture
def other(family: Family) -> Family:
    """The family that is not under test."""
    return FAMILIES["rar" if family.name == "var" else "var"]


@pytest.fixture
def states(family: Family, fill: ModuleType) -> tuple[State, State]:
    """The entries of a transformer and of its tokenizer."""
    modules = [build(sizes) for build, sizes in zip(family.build, family.sizes, strict=True)]
    first, second = (fill.fill_state_dict(module).state_dict() for module in modules)
    return dict(first), dict(second)


@pytest.fixture
def files(states: tuple[State, State]) -> tuple[Path, Path]:
    paths = (Path("weights.pth"), Path("tokenizer.pth"))
    for state, path in zip(states, paths, strict=True):
        torch.save(state, path)
    return paths
