"""Make torchvision importable where its compiled part does not fit the installed torch.

With CPU-only torch beside PyPI's torchvision, ``import torchvision`` stops at
``operator torchvision::nms does not exist``: its Python part describes two operators that only
its compiled part declares. Declaring their schemas is enough to import it; calling either
operator still fails with torchvision's own message.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SCHEMAS = tuple(
    f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for operator in ("nms", "qnms")
)
_declared: list[torch.library.Library] = []  # schemas live as long as their library object


def import_torchvision() -> ModuleType:
    """Import torchvision, declaring its missing operators only where the import fails for them.

    Returns:
        the torchvision module; where its compiled part is present, nothing else is done.

    Raises:
        RuntimeError: torchvision's own, where the import fails for another reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    _forget_half_imported()
    _declare_operators()
    return importlib.import_module("torchvision")


def _declare_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        library.define(schema)
    _declared.append(library)


def _forget_half_imported() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
