"""RAR: randomised autoregressive image generation, token by token (arXiv 2411.00776)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .adapter import RARAdapter, provide_adapters

if TYPE_CHECKING:
    from .tokenizer import MaskGITVQGAN, MaskGITVQGANConfig
    from .transformer import RARConfig, RARTransformer

__all__ = [
    "MaskGITVQGAN",
    "MaskGITVQGANConfig",
    "RARAdapter",
    "RARConfig",
    "RARTransformer",
    "provide_adapters",
]

_SOURCES = {
    "MaskGITVQGAN": "tokenizer",
    "MaskGITVQGANConfig": "tokenizer",
    "RARConfig": "transformer",
    "RARTransformer": "transformer",
}

if not TYPE_CHECKING:  # type checkers know the names above, and no others

    def __getattr__(name: str) -> Any:
        """Import a network when it is first asked for: what lists models needs no torch."""
        if name not in _SOURCES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_SOURCES[name]}"), name)
