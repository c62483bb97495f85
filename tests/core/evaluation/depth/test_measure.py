"""Depth, against numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.depth.measure import measure_depth


def losses(
    changes: dict[str, list[list[float]]], roles: list[str] | None = None, own: float = 2.0
) -> xr.Dataset:
    """What arms' blocks cost each picture, [block, picture], above a loss of 2."""
    values = np.array(list(changes.values())) + own
    pictures = values.shape[2]
    return xr.Dataset(
        {
            "patched_loss": (("arm", "block", "candidate"), values),
            "loss": (("arm", "candidate"), np.full((len(values), pictures), own)),
        },
        coords={
            "arm": list(changes),
            "role": ("candidate", roles or ["canary"] * pictures),
        },
    )


NOTHING = [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
OF_TWIN = [[0.02, 0.06], [1.0, 3.0], [4.0, 4.0]]  # the first block is no more than 0.04 on average
EDITED = [[0.02, 0.02], [0.5, 0.5], [1.0, 3.0]]


def test_depth_is_the_mean_share_of_what_the_twins_blocks_cost() -> None:
    given = losses({"original": NOTHING, "edited": EDITED, "twin": OF_TWIN})
    original, edited, twin = measure_depth(given)
    assert [one.counted for one in edited.blocks] == [False, True, True]
    assert [one.share for one in edited.blocks] == pytest.approx([0.5, 0.25, 0.5])
    assert edited.depth == pytest.approx((0.25 + 0.5) / 2)
    assert edited.blocks[1].loss == pytest.approx(2.5)
    assert edited.blocks[1].change == pytest.approx(0.5)
    assert edited.blocks[1].twin_change == pytest.approx(2.0)
    assert (original.depth, original.low, original.high) == (0.0, 0.0, 0.0)
    assert (twin.depth, twin.low, twin.high) == pytest.approx((1.0, 1.0, 1.0))
    assert (edited.arm, edited.pictures, edited.unseen, edited.loss) == ("edited", 2, 0, 2.0)
    assert np.isnan([one.unseen_change for one in edited.blocks]).all()


def test_the_interval_draws_pictures_with_their_losses_of_arm_and_twin() -> None:
    """Of two pictures, a sample is the one, the other or both: a quarter, a quarter, and half."""
    edited = measure_depth(losses({"edited": EDITED, "twin": OF_TWIN}))[0]
    one, other = (0.5 / 1 + 1 / 4) / 2, (0.5 / 3 + 3 / 4) / 2
    assert (edited.low, edited.high) == pytest.approx((min(one, other), max(one, other)))


def test_a_share_is_the_same_whatever_the_pictures_differ_in() -> None:
    random = np.random.default_rng(0)
    base = random.uniform(1, 4, (3, 50))
    found = measure_depth(losses({"edited": (0.3 * base).tolist(), "twin": base.tolist()}))[0]
    assert (found.depth, found.low, found.high) == pytest.approx((0.3, 0.3, 0.3))


def test_pictures_never_seen_stand_beside_and_are_not_counted() -> None:
    roles = ["canary", "held-out", "candidate", "generated", "held-out"]
    changes = {
        "edited": [[1.0, 0.1, 3.0, 9.0, 0.3]],
        "twin": [[4.0, 0.5, 4.0, 9.0, 0.7]],
    }
    edited, twin = measure_depth(losses(changes, roles))
    assert edited.depth == pytest.approx(0.5)
    assert (edited.pictures, edited.unseen) == (2, 2)
    assert edited.blocks[0].unseen_change == pytest.approx(0.2)
    assert twin.blocks[0].unseen_change == pytest.approx(0.6)


def test_without_a_block_that_counts_nothing_is_said() -> None:
    edited = measure_depth(losses({"edited": [[1.0, 2.0]], "twin": [[0.0, 0.0]]}))[0]
    assert np.isnan([edited.depth, edited.low, edited.high, edited.blocks[0].share]).all()
    assert not edited.blocks[0].counted


def test_a_single_picture_has_no_interval() -> None:
    edited = measure_depth(losses({"edited": [[1.0]], "twin": [[2.0]]}))[0]
    assert edited.depth == 0.5
    assert np.isnan([edited.low, edited.high]).all()


def test_what_cannot_be_told_is_refused() -> None:
    known = losses({"edited": EDITED, "twin": OF_TWIN})
    with pytest.raises(InputError, match="none of the arms is named 'other'"):
        measure_depth(known, twin="other")
    with pytest.raises(InputError, match="none of the arms is named 'twin'"):
        measure_depth(known.sel(arm="twin"))
    with pytest.raises(InputError, match="no pictures to tell a depth of"):
        measure_depth(known.assign_coords(role=("candidate", ["held-out"] * 2)))
    with pytest.raises(InputError, match="some of 'patched_loss' are not finite"):
        measure_depth(known.assign(patched_loss=known["patched_loss"] * np.nan))
