"""Does UnitMem lead to the same neurons, whichever training images it is given?

    python examples/subsets_of_members.py var-organism

scores an organism's neurons on nested and on disjoint parts of what it was trained on, and on
pictures that it never saw, in one run of the model, and compares the scores pair by pair. Those of
the first draw are written, too: ``iarmem compare-scores OUT/10% OUT/25%`` compares any of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import iarmem_plugin as iarmem
from iarmem_plugin.plugins.create import create

SHARES = (1, 5, 10, 25, 50)  # percent of the members
ALL = "100%"


def parts(members: np.ndarray, unseen: np.ndarray) -> dict[str, np.ndarray]:
    """Return images by name: nested shares, as many others, and as many that were never seen."""
    found = {ALL: members}
    for share in SHARES:
        size = round(len(members) * share / 100)
        found |= {f"{share}%": members[:size], f"other {share}%": members[size : 2 * size]}
        found |= {f"unseen for {share}%": unseen[:size]}
    return found


def pairs() -> Iterator[tuple[str, str, str]]:
    """Yield what is compared, and how the two are related."""
    names = [f"{share}%" for share in SHARES]
    yield from (("nested", *both) for both in pairwise([*names, ALL]))
    yield from (("nested", one, ALL) for one in names[:-1])
    yield from (("disjoint", one, f"other {one}") for one in names)
    yield from (("never seen", one, f"unseen for {one}") for one in names)


def show(draws: list[dict[str, xr.Dataset]]) -> None:
    """Print a row a pair: mean over the draws, and its range, of correlation and overlap."""
    print("related | scores | rank correlation | by scale | shared of the top 10% | by chance")
    for how, one, other in pairs():
        made = [
            iarmem.compare_scores({name: draw[name] for name in (one, other)}) for draw in draws
        ]
        joined = [found.pairs[0] for found in made]  # the mean over the scales
        by_scale = [pair.correlation or 0.0 for found in made for pair in found.pairs[1:]]
        correlation = [pair.correlation or 0.0 for pair in joined]
        share = [pair.share or 0.0 for pair in joined]
        texts = [
            f"{np.mean(values):.2f} [{min(values):.2f}, {max(values):.2f}]"
            for values in (correlation, by_scale, share)
        ]
        chance = f"{joined[0].chance:.2f} [{joined[0].chance_low:.2f}, {joined[0].chance_high:.2f}]"
        print(how, f"{one} – {other}", *texts, chance, sep=" | ")


def main(
    name: str = "var-organism",
    out: Path = Path("iarmem-subsets"),
    *,
    views: int = 10,
    draws: int = 3,
) -> None:
    """Score once, leaving out; print the table; write the scores of the first draw."""
    torch.set_num_threads(1)
    model = iarmem.load(name)
    make = model.adapter.variant.organism
    if make is None:
        raise SystemExit(f"{name} is not an organism")
    truth = make()
    members, held_out = truth.exposures > 0, truth.group == "held-out"
    images = truth.pictures.subset(np.flatnonzero(members | held_out))
    metrics: dict[tuple[str, int], iarmem.LeavingOut] = {}
    for draw in range(draws):
        random = np.random.default_rng(draw)
        mixed = (random.permutation(np.flatnonzero(one)) for one in (members, held_out))
        for part, rows in parts(*mixed).items():
            ids = np.setdiff1d(images.ids, truth.pictures.ids[rows])
            if part != ALL or draw == 0:
                metrics[part, draw] = iarmem.LeavingOut(create("metric", "unitmem"), ids)
    scored = iarmem.localize(
        model,
        images,
        metric=tuple(metrics.values()),
        options=iarmem.CaptureOptions(views=views),
    )
    found = [{ALL: scored[metrics[ALL, 0].key]} for _ in range(draws)]
    for (part, draw), metric in metrics.items():
        found[draw][part] = scored[metric.key]
    show(found)
    for part, scores in found[0].items():
        iarmem.save_scores(scores, out / part)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "var-organism")
