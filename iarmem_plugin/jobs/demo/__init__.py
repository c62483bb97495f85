"""The whole job on a bundled organism, whose memory is known."""

from __future__ import annotations

from iarmem_plugin.jobs.demo.job import check, demo, organisms, twin_of
from iarmem_plugin.jobs.demo.pictures import Sizes, candidates, captured_pictures

__all__ = ["Sizes", "candidates", "captured_pictures", "check", "demo", "organisms", "twin_of"]
