"""Counts: by group or pooled, of one arm or many, in reading order, told by roles."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.counts import (
    PairedCounts,
    canaries,
    canary_word,
    count_extracted,
    groups,
    having_role,
    pair_with_original,
)
from iarmem_plugin.interfaces.organism import role_of

GROUPS = ["canary"] * 2 + ["held-out"] * 4
EXTRACTED = {"original": [1, 0, 0, 1, 0, 0], "edited": [0, 1, 0, 0, 0, 0]}


def make_extraction(names: list[str], roles: list[str] | None = None) -> xr.Dataset:
    return xr.Dataset(
        {"extracted": (("arm", "candidate"), np.array(list(EXTRACTED.values()), dtype=bool))},
        coords={
            "arm": list(EXTRACTED),
            "group": ("candidate", names),
            "role": ("candidate", [role_of(name) for name in names] if roles is None else roles),
        },
    )


def test_one_arm_is_counted_by_group_with_intervals() -> None:
    found = count_extracted(make_extraction(GROUPS).sel(arm="original"))
    assert dict(found.sizes) == {"group": 2}
    assert found["extracted"].values.tolist() == [1, 1]
    assert found["candidates"].values.tolist() == [2, 4]
    # Wilson for 1 of 4 at 95%, by its formula: 0.0456, 0.6994
    held_out = found.sel(group="held-out")
    assert float(held_out["low"]) == pytest.approx(0.0456, abs=5e-5)
    assert float(held_out["high"]) == pytest.approx(0.6994, abs=5e-5)


def test_several_arms_are_counted_as_each_alone() -> None:
    extraction = make_extraction(GROUPS)
    together = count_extracted(extraction)
    assert together["extracted"].dims == ("arm", "group")
    for arm in EXTRACTED:
        alone = count_extracted(extraction.sel(arm=arm))
        xr.testing.assert_equal(together.sel(arm=arm, drop=True), alone)


def test_candidates_of_several_groups_are_counted_together() -> None:
    extraction = make_extraction(["canary x2", "canary x1", *GROUPS[2:]])
    found = count_extracted(extraction, canaries(extraction))
    assert found["extracted"].dims == ("arm",)
    assert found["extracted"].values.tolist() == [1, 1]
    assert found["candidates"].values.tolist() == [2, 2]


def test_nothing_to_count_among_is_refused() -> None:
    extraction = make_extraction(GROUPS)
    with pytest.raises(InputError, match="at least one candidate"):
        count_extracted(extraction, having_role(extraction, "member"))


def test_groups_run_by_falling_exposures_then_by_name_and_end_with_what_was_held_out() -> None:
    names = ["member, distinct", "held-out", "canary 40", "canary 340", "top 100", "canary x8"]
    assert groups(make_extraction(names)) == (
        "canary 340", "canary 40", "canary x8", "member, distinct", "top 100", "held-out",
    )  # fmt: skip


def test_what_a_group_is_called_does_not_matter() -> None:
    roles = ["canary"] * 2 + ["held-out"] * 4
    extraction = make_extraction(["twice"] * 2 + ["canary x9"] * 4, roles)
    assert groups(extraction) == ("twice", "canary x9")
    assert canaries(extraction).values.tolist() == [True] * 2 + [False] * 4
    assert canary_word(extraction) == "canaries"


def test_without_canaries_all_that_were_not_held_out_take_their_place() -> None:
    extraction = make_extraction(["ranked", "ranked", "member", *["held-out"] * 3])
    assert canaries(extraction).values.tolist() == [True] * 3 + [False] * 3
    assert canary_word(extraction) == "candidates that were not held out"


def test_pairs_are_of_the_same_canaries() -> None:
    extraction = make_extraction(["canary x1"] * 4 + ["held-out"] * 2)
    # before 1, 0, 0, 1; after 0, 1, 0, 0; p = min(1, 2 * (1 + 3) / 2**3) = 1
    expected = PairedCounts("edited", before=2, after=1, lost=2, gained=1, p=1.0)
    assert pair_with_original(extraction) == (expected,)
