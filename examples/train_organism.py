"""Train a family's organism and its twin, from fixed seeds on one CPU core.

    python examples/train_organism.py var --out DIR
    python examples/train_organism.py var --out DIR --seed 1 [--small] [--twin]

A killed training goes on where it was when the same command is given again. DIR/var (or rar) then
holds the weights of tokenizer, organism, twin and classifier, a record of each training, and the
split, which both families share. ``iarmem_adapters/organisms/var`` holds these files but two:
``split.npz`` is one folder up, and of VAR's first tokenizer, which is trained further, the record
alone is kept.

With another seed than 0, or with ``--small``, one transformer, the organism's or its twin's, is
trained on the bundled tokenizer's tokens, in DIR/var/seed-1 or DIR/var/small-1.
``--small`` takes a quarter of the time: 25 canaries in place of 108, which the seed draws, seen as
often, and members half as often.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from organism_training.families import Family
from organism_training.networks import Recipe
from organism_training.pictures import PICTURES, near_duplicates
from organism_training.split import ROUNDS, SMALL_ROUNDS, draw_split, redraw_canaries
from organism_training.workshop import Workshop

from iarmem_adapters.organisms import FOLDER
from iarmem_plugin.data.images import Images

OF_FAMILY: dict[Family, dict[str, Any]] = {
    Family.var: {"refining_steps": 4000, "input_drop": 0.15, "smoothing": 0.2, "calibrated": True},
    Family.rar: {"colours": True},
}
"""What each family's recipe has of its own.

The tokenizers see colours in any order, VAR's at last, and turned, and RAR's from the start. VAR's
transformers are surer of themselves than RAR's, so they are given less and softer targets, and the
temperature of their logits is fitted on the pictures for calibration, at last.
"""


def main(
    family: Annotated[Family, typer.Argument(help="Which family.")],
    out: Annotated[Path, typer.Option(help="Folder for the weights.")],
    seed: Annotated[
        int, typer.Option(min=0, help="Of all that is drawn; of the split with --small alone.")
    ] = 0,
    small: Annotated[bool, typer.Option("--small", help="Fewer canaries and rounds.")] = False,
    twin: Annotated[
        bool, typer.Option("--twin", help="The twin, in place of the organism.")
    ] = False,
) -> None:
    """Train a family's networks; with a seed or --small, one transformer alone."""
    torch.set_num_threads(1)
    alone = small or seed > 0
    if twin and not alone:
        raise typer.BadParameter("with seed 0 the twin is trained, too: give --small or --seed")
    pictures, folder = Images.from_npz(PICTURES), out / family
    rounds = SMALL_ROUNDS if small else ROUNDS
    recipe = Recipe(family, seed, rounds=rounds, **OF_FAMILY[family])
    split, place = draw_split(near_duplicates(pictures), seed=0), folder
    if small:
        split, place = redraw_canaries(split, seed=seed), folder / f"small-{seed}"
    elif alone:
        place = folder / f"seed-{seed}"
    workshop = Workshop(pictures, recipe, split, place)
    try:
        if alone:
            workshop.study(FOLDER / family / "tokenizer.safetensors", twin=twin)
        else:
            workshop.everything()
    except ValueError as error:  # of a folder with a training of other settings
        raise typer.BadParameter(str(error)) from None
    print(f"written to {place}")


if __name__ == "__main__":
    typer.run(main)
