"""Every public function with shaped arguments refuses a wrong shape under the gate's flag.

The check runs in an interpreter of its own, in which the packages are imported under jaxtyping's
hook, exactly as `--jaxtyping-packages` does; so it holds whether or not pytest got that flag.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ENUMERATION = Path(__file__).with_name("shaped_arguments.py")


@pytest.fixture(scope="module")
def arguments() -> dict[str, dict[str, Any]]:
    """One entry for each shaped argument: what came of a wrong and of a right shape."""
    command = [sys.executable, str(ENUMERATION)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_wrong_shape_is_refused(arguments: dict[str, dict[str, Any]]) -> None:
    accepted = {name: one["wrong"] for name, one in arguments.items() if not one["refused"]}
    assert accepted == {}


def test_a_right_shape_is_not_refused(arguments: dict[str, dict[str, Any]]) -> None:
    refused = {name: one["right"] for name, one in arguments.items() if not one["accepted"]}
    assert refused == {}


@pytest.mark.parametrize(
    "name",
    [
        "iarmem_plugin.interfaces.neurons.NeuronWeights(writes)",
        "iarmem_plugin.interfaces.evaluation.Completion(images)",
        "iarmem_plugin.interfaces.adapter.Adapter.tokenize(images)",
        "iarmem_plugin.interfaces.adapter.Adapter.complete(prefix)",
        "iarmem_adapters.var.transformer.VARTransformer.forward(x_in)",
        "iarmem_adapters.var.tokenizer.MultiScaleVQVAE.decode(tokens)",
    ],
)
def test_the_enumeration_sees_every_kind_of_function(
    arguments: dict[str, dict[str, Any]], name: str
) -> None:
    assert name in arguments
