"""Which numbers can tell a model that has seen canaries from its twin that has not?

    python examples/meta_evaluation.py var --out DIR

trains organisms and twins of seeds 1 to 10 by the cut-down recipe, as ``train_organism.py --small``
does, measures each, and writes and shows tables of what tells them apart; the same command goes on
where it was ended. ``--trained`` trains nothing, and measures the pairs that are there.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from meta import cells, scalars, selectors
from meta.pairs import SIDES, Pair, Pictures, Sizes
from organism_training.families import Family
from rich import print

from iarmem_plugin.errors import InputError


def main(
    family: Annotated[Family, typer.Argument(help="Which family.")],
    out: Annotated[Path, typer.Option(help="Folder for weights, measurements and tables.")],
    seeds: Annotated[int, typer.Option(min=1, help="Pairs, of seeds 1 to this.")] = 10,
    trained: Annotated[
        bool, typer.Option("--trained", help="Train nothing; measure the pairs that are there.")
    ] = False,
) -> None:
    """Train, measure, and show what tells organisms from twins."""
    torch.set_num_threads(1)
    try:
        evaluate(family, out, range(1, seeds + 1), trained=trained)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None


def evaluate(
    family: Family, out: Path, seeds: range, *, trained: bool = False, sizes: Sizes | None = None
) -> None:
    """Measure pair after pair."""
    from train_organism import main as train

    for seed in seeds:
        pair = Pair(family, out / family / f"small-{seed}")
        if not trained:
            for twin in (False, True):
                train(family, out, seed=seed, small=True, twin=twin)
        if pair.trained:
            measure(pair, sizes or Sizes())
            print(f"seed {seed} is measured", file=sys.stderr)


def measure(pair: Pair, sizes: Sizes) -> list[Any]:
    """Measure both models of a pair, and its selectors, where that is not done."""
    pictures = Pictures.of(pair.split, sizes)
    settings = {"sizes": asdict(sizes), "fixed": scalars.MADE_BY, "iarmem": version("iarmem")}
    found = [
        cells.kept(
            pair.folder / f"measured-{side}.json",
            settings | pair.made_from(side),
            lambda side=side: scalars.measured(pair.model(side), pictures, sizes),
        )
        for side in SIDES
    ]
    both = cells.kept(
        pair.folder / "measured-selectors.json",
        settings | pair.made_from(*SIDES),
        lambda: selectors.measured(pair, pictures, sizes),
    )
    return [*found, both]


if __name__ == "__main__":
    typer.run(main)
