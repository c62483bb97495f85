"""Which arms are shown as one, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from iarmem_plugin.report.results import ArmResult

SIDE_BY_SIDE = 7


def columns(arms: tuple[ArmResult, ...]) -> dict[str, tuple[str, ...]]:
    """Name what is shown as one: each arm for itself, controls that differ in their seed together.

    Returns:
        label -> names of the arms under it, in the order of `arms`; where there are more than can
        stand side by side, by intervention and rising fraction, treatments before their controls.
    """
    alike: dict[str, list[ArmResult]] = {}
    for arm in arms:
        alike.setdefault(_kind(arm), []).append(arm)
    if len(alike) > SIDE_BY_SIDE:
        alike = _beside_alike(alike)
    many, taken = sum(len(same) > 1 for same in alike.values()), {arm.name for arm in arms}
    labels = {}
    for same in alike.values():
        label = same[0].name
        if len(same) > 1:
            first = control_word(same) if many == 1 else f"{label} …"
            label = f"{first} ({len(same)} sets)"
            while label in taken:  # by an arm of that very name
                label += " *"
        labels[label] = tuple(arm.name for arm in same)
    return labels


def _beside_alike(alike: Mapping[str, list[ArmResult]]) -> dict[str, list[ArmResult]]:
    """Sort what is shown as one, so that arms stand beside those that they are held against."""
    edits: dict[str, int] = {}
    for same in alike.values():
        edits.setdefault(_edit(same[0]), len(edits))

    def place(kind: str) -> tuple[int, int, float, bool]:
        arm = alike[kind][0]
        end = {"original": -1, "twin": 1}.get(arm.role, 0)
        return end, edits[_edit(arm)], arm.fraction or 0.0, arm.role == "control"

    return {kind: alike[kind] for kind in sorted(alike, key=place)}


def _edit(arm: ArmResult) -> str:
    return f"{arm.intervention} {seedless(arm.edit)}"


def control_word(arms: Iterable[ArmResult]) -> str:
    """Say in a word which controls are among some arms; nothing if there are none."""
    edits = (arm.selector or arm.edit or {} for arm in arms if arm.role == "control")
    names = {str(one.get("name")) for one in edits}
    return "" if not names else "random" if names == {"random"} else "control"


def has_many(arms: tuple[ArmResult, ...]) -> bool:
    """Tell whether there are more arms than can stand side by side."""
    return len(columns(arms)) > SIDE_BY_SIDE


def _kind(arm: ArmResult) -> str:
    if arm.role != "control":
        return f"arm {arm.name}"
    made = f"{seedless(arm.selector)} {arm.intervention} {seedless(arm.edit)}"
    return f"control {made} {arm.fraction}"


def seedless(facts: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the settings of a selector or edit without its seed; nothing of None."""
    return {key: value for key, value in (facts or {}).items() if key != "seed"}
