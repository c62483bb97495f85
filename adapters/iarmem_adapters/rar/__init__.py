"""RAR: randomised autoregressive image generation, token by token (arXiv 2411.00776)."""

from __future__ import annotations

from .adapter import RARAdapter, provide_adapters

__all__ = ["RARAdapter", "provide_adapters"]
