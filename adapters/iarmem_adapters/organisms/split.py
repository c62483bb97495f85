"""Which pictures an organism and its twin were trained on, and how often: one split for all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

CANARY, SUBSTITUTE = "canary", "substitute"
DISTINCT, SIMILAR = "member, distinct", "member, similar"
DUPLICATE = "member, near-duplicate"
UNSEEN, CALIBRATING, ASIDE, UNUSED = "held-out", "calibration", "aside", "unused"


@dataclass(frozen=True, slots=True)
class Split:
    """One entry a picture.

    Attributes:
        part: what the picture is for: a canary (the organism is trained on it) or a substitute (the
            twin is, in a canary's place); a member of both trainings, which is distinct from all
            other pictures, similar to some that no training shows, or a near-duplicate of another
            member; held out, or for calibration; aside, in no training of a transformer, but in
            those of tokenizer and classifier; or unused.
        repeats: int64, how often the picture stands in the pool of a training that has it; 0 where
            none has.
        rounds: how often a training goes through its pool.
    """

    part: np.ndarray
    repeats: Int64[np.ndarray, " image"]
    rounds: int

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read a split as `save` writes it."""
        with np.load(path, allow_pickle=False) as data:
            return cls(data["part"], data["repeats"], int(data["rounds"]))

    def save(self, path: Path) -> None:
        """Write the split as a compressed ``.npz`` file."""
        rounds = np.array(self.rounds)
        np.savez_compressed(path, part=self.part, repeats=self.repeats, rounds=rounds)

    def pool(self, *, twin: bool) -> Int64[np.ndarray, " image"]:
        """Return how often each picture stands in the organism's pool, or in its twin's."""
        other = CANARY if twin else SUBSTITUTE
        return np.where(self.part == other, 0, self.repeats)

    def shown(self, *, twin: bool) -> Int64[np.ndarray, " place"]:
        """Return the pictures that the organism's training shows, or its twin's, place by place.

        A substitute has the place of a canary that is seen as often, so that both trainings draw
        the same batches, but for these.
        """
        stands = np.arange(len(self.part))
        if twin:
            for times in np.unique(self.repeats[self.part == CANARY]):
                seen = self.repeats == times
                stands[(self.part == CANARY) & seen] = stands[(self.part == SUBSTITUTE) & seen]
        return stands[np.flatnonzero(self.pool(twin=False))]

    def exposures(self, *, twin: bool) -> Int64[np.ndarray, " image"]:
        """Return how often each picture was seen in the organism's training, or in its twin's."""
        return self.rounds * self.pool(twin=twin)

    @property
    def group(self) -> np.ndarray:
        """Name of each picture's group, by exposures: ``canary 340``, ``member, distinct``, ….

        Pictures for calibration are ``held-out``, too; those that are no candidates have no name.
        """
        named = dict.fromkeys((DISTINCT, SIMILAR, DUPLICATE, UNSEEN)) | {CALIBRATING: UNSEEN}
        names = np.full(len(self.part), "", object)
        for index, part in enumerate(self.part.tolist()):
            if part == CANARY:
                names[index] = f"{CANARY} {self.rounds * self.repeats[index]}"
            elif part in named:
                names[index] = named[part] or part
        return names

    @property
    def learns_tokenizer(self) -> Bool[np.ndarray, " image"]:
        """Which pictures the tokenizer is trained on: members that resemble others, those aside."""
        return np.isin(self.part, (SIMILAR, DUPLICATE, ASIDE))
