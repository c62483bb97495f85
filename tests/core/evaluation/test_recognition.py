"""What counts as recognisable: shares of completed tokens, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.counts import RECOGNISABLE, count_extracted, outcomes
from iarmem_plugin.evaluation.recognition import Recognition, agreement


def completions(equal: list[int], *, prefix: int = 4, tokens: int = 14) -> xr.Dataset:
    """Return completions of ten tokens after four, of which so many are right."""
    count = len(equal)
    found = np.array(equal, np.int32)
    return xr.Dataset(
        {
            "equal_tokens": ("candidate", found),
            "similarity": ("candidate", np.zeros(count, np.float32)),
            "extracted": ("candidate", np.zeros(count, bool)),
            "tokens": (("candidate", "token"), np.zeros((count, tokens), np.int32)),
        },
        coords={
            "group": ("candidate", ["canary 40"] * (count - 1) + ["held-out"]),
            "role": ("candidate", ["canary"] * (count - 1) + ["held-out"]),
        },
        attrs={"prefix_tokens": prefix},
    )


def test_agreement_leaves_the_prefix_out() -> None:
    found = agreement(completions([4, 9, 14]))
    assert found.values.tolist() == [0, 0.5, 1]
    assert found.dims == ("candidate",)


def test_a_prefix_of_all_tokens_leaves_nothing_to_recognise() -> None:
    with pytest.raises(InputError, match="all 14 tokens leaves nothing"):
        agreement(completions([14], prefix=14))


def test_the_threshold_lets_the_same_share_of_pictures_never_seen_through() -> None:
    recognition = Recognition()
    unseen = completions([*range(4, 14), *range(4, 14)])  # agreements 0 to 0.9, each twice
    assert recognition.calibrate(unseen, rate=0.1, source="twenty pictures") == pytest.approx(0.8)
    assert recognition.source.startswith("twenty pictures: at most 10% of n=20 recognisable; ")
    judged = recognition.judged(unseen)
    assert int(judged[RECOGNISABLE].sum()) == 2
    assert judged.attrs["recognition_threshold"] == recognition.threshold
    assert judged.attrs["recognition_threshold_source"] == recognition.source


def test_a_candidate_at_the_threshold_is_not_recognisable() -> None:
    judged = Recognition(threshold=0.5, source="by hand").judged(completions([9, 10, 4]))
    assert judged[RECOGNISABLE].values.tolist() == [False, True, False]
    counts = count_extracted(judged, outcome=RECOGNISABLE)
    assert counts["extracted"].values.tolist() == [1, 0]
    assert counts["candidates"].values.tolist() == [2, 1]
    assert outcomes(judged) == ("extracted", "recognisable")


def test_without_a_threshold_nothing_is_judged() -> None:
    found = completions([9, 4])
    assert Recognition().judged(found) is found
    assert outcomes(found) == ("extracted",)


def test_a_threshold_holds_for_the_prefix_that_it_was_fixed_with() -> None:
    recognition = Recognition()
    recognition.calibrate(completions([4, 5]), rate=0.0, source="test")
    with pytest.raises(InputError, match="on completions of 4 given tokens, and 3 are given here"):
        recognition.judged(completions([4], prefix=3))
    Recognition(0.5).judged(completions([4], prefix=3))  # one that a user gives


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_that_is_no_share_is_refused(threshold: float) -> None:
    with pytest.raises(InputError, match="the recognition threshold"):
        Recognition(threshold)


def test_completions_of_unknown_prefix_are_refused() -> None:
    found = completions([4])
    with pytest.raises(InputError, match="have no 'prefix_tokens'; give what extract returned"):
        agreement(found.drop_attrs())


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_rates_outside_are_refused(rate: float) -> None:
    with pytest.raises(InputError, match=r"outside \[0, 1\)"):
        Recognition().calibrate(completions([4]), rate=rate, source="test")
