"""SSCD, at the paper's threshold, sees what the VAR organism remembers and nothing else."""

from __future__ import annotations

import os

import pytest

from iarmem_plugin.evaluation.similarity import SSCD

from .memory import HELD_OUT, Counted, Memory, ladder

FILE = os.environ.get("IARMEM_TEST_SSCD_ONNX", "")


@pytest.mark.slow
@pytest.mark.skipif(not FILE, reason="IARMEM_TEST_SSCD_ONNX names no file of SSCD")
def test_sscd_tells_what_was_often_shown_from_what_was_never(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sscd = SSCD(FILE)
    assert sscd.threshold == 0.75
    one, twin = Memory("var-organism"), Memory("var-organism-twin")
    rungs = ladder(one.counted("canary", similarity=sscd))
    unseen = one.counted(HELD_OUT, similarity=sscd, most=50)[HELD_OUT]
    guessed = twin.counted("canary", similarity=sscd, most=50)
    of_twin = sum(guessed.values(), start=Counted(0, 0))
    found = {"canaries": rungs, "held-out": unseen, "the twin's canaries": of_twin}
    with capsys.disabled():
        print(sscd.provenance, found)
    assert rungs[1360].candidates == 12, found
    assert rungs[1360].extracted >= 10, found
    assert unseen.candidates == of_twin.candidates == 50
    assert unseen.extracted <= 1, found
    assert of_twin.extracted <= 1, found
