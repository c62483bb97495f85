"""What is still recognisable: a completion that has more of its target's tokens than chance gives.

Fewer extracted is not forgotten: a completion that no longer looks like its target may still have
half of the target's tokens where a picture that was never seen has 3 in 100.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from iarmem_plugin.checks import check_kind, check_number
from iarmem_plugin.errors import InputError
from iarmem_plugin.evaluation.counts import RECOGNISABLE, count_extracted
from iarmem_plugin.evaluation.statistics import smallest_threshold

THRESHOLD, SOURCE = "recognition_threshold", "recognition_threshold_source"
KEPT = ("similarity", "prefix_tokens", "reference", "sampling")


@dataclass(slots=True)
class Recognition:
    """When a completion counts as recognisable.

    Attributes:
        threshold: share of the completed tokens, in [0, 1], above which it counts; None where it
            was not fixed.
        source: where the threshold comes from, for the report.
        prefix_tokens: tokens that were given to the completions which fixed it; a threshold holds
            for no other prefix. None allows any.
        completions: what it was fixed on, with ``similarity`` and ``equal_tokens``; None where it
            was given.

    Raises:
        InputError: a threshold outside [0, 1].
    """

    threshold: float | None = None
    source: str = ""
    prefix_tokens: int | None = None
    completions: xr.Dataset | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the threshold."""
        if self.threshold is None:
            return
        check_number("the recognition threshold", self.threshold)
        if not 0 <= self.threshold <= 1:
            raise InputError(
                f"the recognition threshold {self.threshold} is outside [0, 1]; it is the share of "
                "completed tokens above which a candidate is recognisable"
            )

    def calibrate(self, extraction: xr.Dataset, *, rate: float, source: str) -> float:
        """Fix the threshold: at most this share of pictures never seen may be recognisable.

        Args:
            extraction: their completions by the unmodified model, from `extract`.
            rate: share that may lie strictly above, in [0, 1).
            source: where the pictures come from.

        Returns:
            the threshold, which is one of their agreements.

        Raises:
            InputError: without completions, or with another rate.
        """
        values = agreement(extraction).to_numpy()
        kept = {name: extraction.attrs[name] for name in KEPT if name in extraction.attrs}
        about = {**kept, "rate": rate, "tokens": extraction.sizes["token"]}
        self.completions = extraction[["similarity", "equal_tokens"]].drop_attrs()
        self.completions.attrs = about
        found = smallest_threshold("token agreement", values, rate)
        self.threshold, self.prefix_tokens = found.value, int(extraction.attrs["prefix_tokens"])
        self.source = f"{source}: at most {100 * rate:g}% of n={values.size} recognisable; {found}"
        return self.threshold

    def judged(self, extraction: xr.Dataset) -> xr.Dataset:
        """Return an extraction with ``recognisable``, bool, where the threshold is known.

        Raises:
            InputError: the threshold was fixed with another prefix.
        """
        if self.threshold is None:
            return extraction
        self.check_prefix(int(extraction.attrs["prefix_tokens"]))
        recognisable = agreement(extraction) > self.threshold
        return extraction.assign({RECOGNISABLE: recognisable.reset_coords(drop=True)}).assign_attrs(
            {THRESHOLD: self.threshold, SOURCE: self.source}
        )

    def check_prefix(self, prefix_tokens: int) -> None:
        """Refuse another prefix than the one that the threshold was fixed with.

        Raises:
            InputError: naming both.
        """
        if self.threshold is not None and self.prefix_tokens not in (None, prefix_tokens):
            raise InputError(
                f"the recognition threshold was fixed on completions of {self.prefix_tokens} given "
                f"tokens, and {prefix_tokens} are given here; fix it anew, or give as many"
            )


def check_recognition(recognition: object) -> None:
    """Refuse what is neither None nor a `Recognition`.

    Raises:
        InputError: naming what was given.
    """
    kinds = (Recognition, type(None))
    check_kind("recognition", recognition, kinds, "a Recognition, or None")


def agreement(extraction: xr.Dataset) -> xr.DataArray:
    """Return the share of the completed tokens that equal the target's, the prefix left out.

    Args:
        extraction: from `extract`: ``equal_tokens``, the dim ``token``, and the attribute
            ``prefix_tokens``.

    Returns:
        float64 in [0, 1], with the dims of ``equal_tokens``.

    Raises:
        InputError: the prefix was the whole, or it is not said.
    """
    if lacking := {"prefix_tokens"} - set(extraction.attrs) or {"equal_tokens"} - set(extraction):
        raise InputError(f"these completions have no {lacking.pop()!r}; give what extract returned")
    given, tokens = int(extraction.attrs["prefix_tokens"]), extraction.sizes["token"]
    if given >= tokens:
        raise InputError(f"a prefix of all {tokens} tokens leaves nothing to recognise")
    completed = extraction["equal_tokens"].astype(np.float64) - given
    return (completed / (tokens - given)).rename("agreement")


def count_outcome(extraction: xr.Dataset, outcome: str) -> xr.Dataset:
    """Count an outcome by group; beside what is recognisable stands the mean agreement.

    Args:
        extraction: from `extract`, with the dim (arm), too.
        outcome: one of `outcomes`.

    Returns:
        as `count_extracted`, dims (arm, group); for ``"recognisable"`` also ``agreement``, float64.
    """
    counts = count_extracted(extraction, outcome=outcome)
    if outcome != RECOGNISABLE:
        return counts
    shares = agreement(extraction).groupby("group").mean("candidate")
    return counts.assign(agreement=shares.sel(group=counts["group"]))
