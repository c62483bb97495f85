"""The parts of matplotlib that draw without a backend, imported whatever MPLBACKEND names.

Jupyter sets that variable for the commands it runs, to a backend that only Jupyter can import, and
matplotlib refuses to be imported with a backend that it does not find.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["Axes", "Figure", "FigureCanvasAgg", "Legend", "colormaps"]


@contextmanager
def _without_backend() -> Iterator[None]:
    """Hide the variable; afterwards matplotlib has the backend, where it knows it."""
    fresh, wanted = "matplotlib" not in sys.modules, os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if wanted is not None:
            os.environ["MPLBACKEND"] = wanted
    if fresh and wanted:
        with suppress(ValueError):
            sys.modules["matplotlib"].rcParams["backend"] = wanted


with _without_backend():
    from matplotlib import colormaps
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
