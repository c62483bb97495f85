"""What hostile plugins do, and how it is told that they did no harm."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from iarmem_plugin import plugins
from iarmem_plugin.errors import IarmemError, InputError
from iarmem_plugin.plugins.blame import blame

Do = Callable[..., Any]
UnitMem: Any = plugins.find("metric", "unitmem")
HOSTILE = "hostile"


def boom(*_: object, **__: object) -> Any:
    raise RuntimeError("boom")


def refuse(*_: object, **__: object) -> Any:
    raise InputError("no")


def leave(*_: object, **__: object) -> Any:
    sys.exit(3)


def give(value: object) -> Do:
    return lambda *_, **__: value


def refused(run: Callable[[], object]) -> None:
    """Run what must end in an error whose line or note names the plugin."""
    with pytest.raises(Exception) as raised:  # noqa: PT011  # whatever it is, it is named
        run()
    error = raised.value
    named = f"{error} {blame(error)}"
    assert HOSTILE in named or "Hostile" in named, repr(error)
    if blame(error) is None:
        assert isinstance(error, IarmemError)


def same(found: Any, honest: Any) -> None:
    if isinstance(honest, xr.Dataset | xr.DataArray):
        xr.testing.assert_equal(found, honest)
    elif isinstance(honest, torch.Tensor):
        assert torch.equal(found, honest)
    else:
        np.testing.assert_equal(found, honest)
