"""VAR: visual autoregressive modelling by next-scale prediction (arXiv 2404.02905)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .adapter import VARAdapter, provide_adapters

if TYPE_CHECKING:
    from .tokenizer import MultiScaleVQVAE, VQVAEConfig
    from .transformer import VARConfig, VARTransformer

__all__ = [
    "MultiScaleVQVAE",
    "VARAdapter",
    "VARConfig",
    "VARTransformer",
    "VQVAEConfig",
    "provide_adapters",
]

_SOURCES = {
    "MultiScaleVQVAE": "tokenizer",
    "VARConfig": "transformer",
    "VARTransformer": "transformer",
    "VQVAEConfig": "tokenizer",
}

if not TYPE_CHECKING:  # type checkers know the names above, and no others

    def __getattr__(name: str) -> Any:
        """Import a network when it is first asked for: what lists models needs no torch."""
        if name not in _SOURCES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_SOURCES[name]}"), name)
