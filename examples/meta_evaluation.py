"""Which numbers can tell a model that has seen canaries from its twin that has not?

    python examples/meta_evaluation.py var --out DIR

trains organisms and twins of seeds 1 to 10 by the cut-down recipe, as ``train_organism.py --small``
does, measures each, and writes and shows tables of what tells them apart; the same command goes on
where it was ended. ``--trained`` trains nothing, and measures the pairs that are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from meta import cells, scalars, selectors, tables
from meta.pairs import SIDES, Pair, Pictures, Side, Sizes
from organism_training.families import Family
from rich import print
from train_organism import main as train

from iarmem_plugin.errors import InputError
from iarmem_plugin.files import write_results
from iarmem_plugin.table import TextTable

DEFAULTS = Sizes()


def main(
    family: Annotated[Family, typer.Argument(help="Which family.")],
    out: Annotated[Path, typer.Option(help="Folder for weights, measurements and tables.")],
    seeds: Annotated[int, typer.Option(min=1, help="Pairs, of seeds up to this.")] = 10,
    first: Annotated[int, typer.Option(min=1, help="Seed of the first pair.")] = 1,
    trained: Annotated[
        bool, typer.Option("--trained", help="Train nothing; measure the pairs that are there.")
    ] = False,
) -> None:
    """Train, measure, and show what tells organisms from twins."""
    torch.set_num_threads(1)
    if first > seeds:
        raise typer.BadParameter(f"--first is {first}, and --seeds {seeds}: no pair is left")
    try:
        evaluate(family, out, range(first, seeds + 1), trained=trained)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None


def evaluate(
    family: Family, out: Path, seeds: range, *, trained: bool = False, sizes: Sizes = DEFAULTS
) -> None:
    """Measure pair after pair; the tables are written anew after each.

    Args:
        family: which family.
        out: folder for all.
        seeds: of the pairs.
        trained: leave out the pairs that are not trained.
        sizes: how much is measured.
    """
    found = {}
    for seed in seeds:
        pair = Pair(family, out / family / f"small-{seed}")
        if not trained:
            for twin in (False, True):
                train(family, out, seed=seed, small=True, twin=twin)
        if pair.trained:
            found[seed] = measure(pair, sizes)
            title = f"{family}, {len(found)} of {len(seeds)} pairs are measured"
            shown = written(out / family, title, found)
    if not found:
        raise InputError(
            f"no pair in {out / family} is trained, of seeds {[*seeds]}; leave --trained out"
        )
    for table in shown:
        print(table)
    print("written to", out / family)


def written(folder: Path, pairs: str, found: Mapping[int, Sequence[Any]]) -> list[TextTable]:
    """Write what the measurements of some pairs say, and return it as tables to print.

    Args:
        folder: folder for the CSV files.
        pairs: says in titles which pairs they are.
        found: seed -> what `measure` returned.
    """
    organisms, twins, both = zip(*found.values(), strict=True)
    numbers = tables.scalar_rows(organisms, twins)
    chosen = tables.selector_rows([one["selectors"] for one in both])
    values = tables.value_rows(list(found), {"organism": organisms, "twin": twins})
    rows = {"numbers": numbers, "selectors": chosen, "values": values}
    write_results(folder, {f"meta_{name}.csv": tables.as_csv(one) for name, one in rows.items()})
    return [tables.scalar_table(numbers, pairs), tables.selector_table(chosen, pairs)]


def measure(pair: Pair, sizes: Sizes) -> list[Any]:
    """Measure both models of a pair, and its selectors, where that is not done."""
    pictures = Pictures.of(pair.split, sizes)
    settings = {"sizes": asdict(sizes), "fixed": scalars.MADE_BY, "iarmem": version("iarmem")}

    def numbers(side: Side) -> dict[str, Any]:
        return scalars.measured(pair.model(side), pictures, sizes)

    found = [
        cells.kept(
            pair.folder / f"measured-{side}.json",
            settings | pair.made_from(side),
            partial(numbers, side),
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
