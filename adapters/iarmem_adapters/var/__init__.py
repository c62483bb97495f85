"""VAR: visual autoregressive modelling by next-scale prediction (arXiv 2404.02905)."""

from __future__ import annotations

from .adapter import VARAdapter, provide_adapters

__all__ = ["VARAdapter", "provide_adapters"]
