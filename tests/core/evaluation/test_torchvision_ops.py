from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType

import pytest
import torch

from iarmem_plugin.evaluation import torchvision_ops
from iarmem_plugin.evaluation.torchvision_ops import import_torchvision

MISSING = "operator torchvision::nms does not exist"
WITHOUT_COMPILED_PART = """
import torch
def refuse(path):
    raise OSError(f"{path} was built for another torch")
torch.ops.load_library = refuse
"""


def run(code: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_torchvision_without_its_compiled_part_cannot_be_imported_by_itself():
    code = WITHOUT_COMPILED_PART + "try: import torchvision\nexcept RuntimeError as e: print(e)"
    assert run(code) == MISSING


def test_torch_fidelity_can_be_imported_after_the_mending():
    code = WITHOUT_COMPILED_PART + (
        "from iarmem_plugin.evaluation.torchvision_ops import import_torchvision\n"
        "import_torchvision()\n"
        "import torch_fidelity, torch_fidelity.metric_fid\n"
        "print(torch_fidelity.__version__)"
    )
    assert run(code).startswith("0.")


def test_the_mended_torchvision_still_says_that_its_operators_are_missing():
    code = WITHOUT_COMPILED_PART + (
        "from iarmem_plugin.evaluation.torchvision_ops import import_torchvision\n"
        "ops = import_torchvision().ops\n"
        "try: ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)\n"
        "except RuntimeError as e: print(e)"
    )
    assert "Couldn't load custom C++ ops" in run(code)


def test_it_works_after_somebody_else_failed_to_import_torchvision():
    code = WITHOUT_COMPILED_PART + (
        "try: import torchvision\n"
        "except RuntimeError: pass\n"
        "from iarmem_plugin.evaluation.torchvision_ops import import_torchvision\n"
        "import_torchvision()\n"
        "import torchvision\n"
        "network = torchvision.models.resnet18(num_classes=2).eval()\n"
        "print(network(torch.zeros(1, 3, 32, 32)).shape[1])"
    )
    assert run(code) == "2"


def test_nothing_is_declared_where_the_operators_exist():
    code = WITHOUT_COMPILED_PART + (
        "compiled = torch.library.Library('torchvision', 'DEF')  # as the compiled part does\n"
        "for name in ('nms', 'qnms'):\n"
        "    compiled.define(name + '(Tensor a, Tensor b, float iou_threshold) -> Tensor')\n"
        "from iarmem_plugin.evaluation import torchvision_ops\n"
        "torchvision_ops.import_torchvision()\n"
        "print(torchvision_ops._declared)"
    )
    assert run(code) == "[]"


def test_an_import_that_works_is_left_alone(monkeypatch):
    whole = ModuleType("torchvision")
    monkeypatch.setitem(sys.modules, "torchvision", whole)
    before = list(torchvision_ops._declared)
    assert import_torchvision() is whole
    assert torchvision_ops._declared == before


def test_any_other_failure_of_torchvision_is_passed_on(monkeypatch):
    def fail(name):
        raise RuntimeError("compiled with another CUDA")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(RuntimeError, match="another CUDA"):
        import_torchvision()


def test_importing_twice_gives_the_same_module():
    assert import_torchvision() is import_torchvision()
    assert hasattr(torch.ops.torchvision, "nms")
