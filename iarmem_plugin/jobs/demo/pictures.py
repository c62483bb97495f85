"""Which of an organism's pictures a demo uses, and how many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from iarmem_plugin.data.images import Images
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.interfaces.organism import Organism, Role, role_of


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of an organism's data a demo uses.

    Attributes:
        captured: training pictures whose activations are captured, all canaries among them.
        members: candidates of each group of members.
        held_out: candidates that were held out.
        fitted: pictures, held out and not reported, that each arm's temperature is fitted on.
        reference: pictures that canaries are contrasted with: held-out ones that are not reported,
            or members that are no candidates.
        recalibrated: pictures, held out and not reported, on which thresholds are fixed anew.
        free: candidates that the model itself generated.
        generated: images generated in each arm of which image quality is measured.
        everywhere: whether it is measured, and thresholds are fixed anew, in all arms, and not in
            the original, the paper's intervention and the twin alone.
        views: augmented views of each captured picture.
        seeds: how often they are generated.
        tuned: whether the sampling temperature is sought, and not taken as recorded.
    """

    captured: int = 384
    members: int = 34
    held_out: int = 150
    fitted: int = 150
    reference: int = 108
    recalibrated: int = 300  # those that fix the shared ones: with fewer, these differ by chance
    free: int = 34
    generated: int = 300
    views: int = 10
    everywhere: bool = False
    seeds: int = 1
    tuned: bool = False


ALL = 1_000_000
DISTINCT = "member, distinct"
EVERYTHING = Sizes(
    **dict.fromkeys(("captured", "members", "held_out", "fitted", "recalibrated"), ALL),
    free=300,
    generated=1000,
    everywhere=True,
    seeds=3,
    tuned=True,
)


def unreported(organism: Organism, count: int) -> np.ndarray:
    """Return the positions of held-out pictures for calibration, evenly spaced."""
    return spread(np.flatnonzero(organism.calibration), count)


def captured_pictures(organism: Organism, count: int) -> Images:
    """Return training pictures: all canaries, then other members evenly spaced."""
    canaries = having(organism, "canary")
    members = spread(having(organism, "member"), max(0, count - len(canaries)))
    return organism.pictures.subset(np.sort(np.concatenate((canaries, members))))


def reported(organism: Organism, sizes: Sizes) -> np.ndarray:
    """Return bool, one for each picture: canaries, some members, some held-out pictures."""
    chosen = np.zeros(len(organism.group), bool)
    chosen[having(organism, "canary")] = True
    members = organism.group[having(organism, "member")]
    for group in sorted(set(members)):
        chosen[spread(np.flatnonzero(organism.group == group), sizes.members)] = True
    shown = having(organism, "member")
    if (~chosen[shown]).sum() < sizes.reference:  # canaries are contrasted with others
        chosen[spread(shown[organism.group[shown] != DISTINCT], sizes.reference)] = False
    unseen = having(organism, "held-out")
    chosen[spread(unseen[~organism.calibration[unseen]], sizes.held_out)] = True
    return chosen


def candidates(organism: Organism, chosen: np.ndarray) -> Candidates:
    """Return the chosen pictures with their groups, the canaries seen most often first."""
    positions = np.flatnonzero(chosen)
    other = ~np.isin(positions, having(organism, "canary"))
    order = np.lexsort((positions, -organism.exposures[positions], other))
    positions = positions[order]
    return Candidates(organism.pictures.subset(positions), organism.group[positions].astype(str))


def references(organism: Organism) -> dict[str, Images]:
    """Return what generated images are compared with: pictures never shown, then members.

    Their names say what the classifier, in whose features they are compared, has seen of them.
    """
    unseen, members = having(organism, "held-out"), having(organism, "member")
    chosen: dict[Role, tuple[str, np.ndarray]] = {
        "held-out": ("held-out pictures", unseen[~organism.calibration[unseen]]),
        "member": ("members that are no canaries", members),
    }
    saw = {role: organism.classifier_saw.get(role) for role in chosen}
    return {
        name if saw[role] is None else f"{name}, {saw[role]}": organism.pictures.subset(rows)
        for role, (name, rows) in chosen.items()
    }


def having(organism: Organism, role: str) -> np.ndarray:
    """Return the positions of the pictures whose groups have a role."""
    roles = np.array([role_of(str(name)) for name in organism.group])
    return np.flatnonzero(roles == role)


def spread(positions: np.ndarray, count: int) -> np.ndarray:
    """Return `count` positions, evenly spaced; all of them if there are fewer."""
    if count >= len(positions):
        return positions
    spread: np.ndarray = positions[np.linspace(0, len(positions) - 1, count).round().astype(int)]
    return spread
