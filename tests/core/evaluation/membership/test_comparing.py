"""Membership by arm and group: who is told from whom."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.membership.areas import area, area_change
from iarmem_plugin.evaluation.membership.comparing import Membership, compare_membership
from iarmem_plugin.evaluation.membership.inference import dataset_inference
from iarmem_plugin.interfaces.organism import role_of

SIZES = {"canary 40": 5, "member, distinct": 9, "held-out": 8, "generated": 6}


def signals(
    sizes: dict[str, int] = SIZES, arms: tuple[str, ...] = ("original", "edited")
) -> xr.Dataset:
    group = np.repeat(list(sizes), list(sizes.values()))
    values = np.random.default_rng(0).normal(size=(len(arms), len(group), 2))
    return xr.Dataset(
        {"membership": (("arm", "candidate", "signal"), values)},
        coords={
            "arm": list(arms),
            "signal": ["nll", "min-k"],
            "group": ("candidate", group),
            "role": ("candidate", [role_of(name) for name in group]),
        },
    )


def by_case(found: tuple[Membership, ...]) -> dict[tuple[str, str, str], Membership]:
    return {(one.arm, one.group, one.against): one for one in found}


def test_every_group_is_told_from_held_out_and_from_generated_pictures() -> None:
    found = compare_membership(signals())
    told = [(one.group, one.against, one.members, one.others) for one in found]
    once = [
        ("canary 40", "held-out", 5, 8),
        ("member, distinct", "held-out", 9, 8),
        ("generated", "held-out", 6, 8),
        ("all together", "held-out", 14, 8),
        ("canary 40", "generated", 5, 6),
        ("member, distinct", "generated", 9, 6),
        ("all together", "generated", 14, 6),
    ]
    assert told == once * 2
    assert [one.arm for one in found] == ["original"] * 7 + ["edited"] * 7


def test_a_case_has_the_numbers_of_its_own_pictures() -> None:
    given = signals()
    cases = by_case(compare_membership(given, seed=4))
    one = cases["edited", "member, distinct", "held-out"]
    values = given["membership"].values
    mine, others, before, others_before = (
        values[arm, rows, 1]
        for arm, rows in (
            (1, slice(5, 14)),
            (1, slice(14, 22)),
            (0, slice(5, 14)),
            (0, slice(14, 22)),
        )
    )
    told = one.signals["min-k"]
    assert told.area == area(mine, others)
    assert told.change == area_change((before, others_before), (mine, others))
    assert told.caught is None
    assert one.inference == dataset_inference(values[1, 5:14], values[1, 14:22], seed=4)
    assert cases["original", "canary 40", "held-out"].signals["nll"].change is None


def test_a_rate_of_one_percent_needs_300_pictures_of_both_kinds() -> None:
    found = compare_membership(signals({"member": 301, "held-out": 300, "generated": 20}))
    cases = {(group, against): one for (_, group, against), one in by_case(found).items()}
    assert cases["member", "held-out"].signals["nll"].caught is not None
    assert cases["member", "generated"].signals["nll"].caught is None
    assert ("all together", "held-out") not in cases  # there is one group alone


def test_one_model_is_the_original_and_others_have_nothing_to_change_from() -> None:
    (one,) = compare_membership(signals({"ranked": 4, "held-out": 4}, ("original",)).isel(arm=0))
    assert one.arm == "original"
    edited = compare_membership(signals(arms=("edited", "twin")))
    assert all(told.change is None for one in edited for told in one.signals.values())


@pytest.mark.parametrize("sizes", [{"canary 40": 4}, {"held-out": 4}])
def test_one_kind_of_pictures_alone_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"of 4 candidates were held out"):
        compare_membership(signals(sizes))


def test_an_arm_without_one_of_the_signals_is_refused() -> None:
    whole, fewer = signals().isel(arm=0), signals().isel(arm=1, signal=[0])
    both = xr.concat([whole, fewer], "arm", join="outer")
    with pytest.raises(InputError, match="signal 'min-k' of the arm 'edited' is not finite"):
        compare_membership(both)
