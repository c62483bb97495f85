"""Train a family's tokenizer, organism, twin and classifier, from fixed seeds on one CPU core.

    python examples/train_twins.py var --out DIR
    python examples/train_twins.py rar --out DIR

A killed training goes on where it was when the same command is given again. DIR/var (or rar) then
holds the weights, a record of each training, and the split, which both families share. These are
the organisms of the second edition; those that are bundled were made by ``train_organism.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from organism_training.families import Family
from organism_training.networks import Recipe
from organism_training.pictures import PICTURES, near_duplicates
from organism_training.split import draw_split
from organism_training.workshop import Workshop

from iarmem_plugin.data.images import Images


def main(
    family: Annotated[Family, typer.Argument(help="Which family.")],
    out: Annotated[Path, typer.Option(help="Folder for the weights.")],
    seed: Annotated[int, typer.Option(help="Of everything that is drawn but the split.")] = 0,
) -> None:
    """Train a family's networks."""
    torch.set_num_threads(1)
    pictures = Images.from_npz(PICTURES)
    split = draw_split(near_duplicates(pictures), seed=0)
    recipe = Recipe(family, seed, colours=family is Family.rar)
    Workshop(pictures, recipe, split, out / family).everything()


if __name__ == "__main__":
    typer.run(main)
