"""Finished pieces of long jobs on disk, and who does which."""

from __future__ import annotations

from iarmem_plugin.stages.cells import Cell, Cells, Failure, forget_cells
from iarmem_plugin.stages.stages import Stages, forget

__all__ = ["Cell", "Cells", "Failure", "Stages", "forget", "forget_cells"]
