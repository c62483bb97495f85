"""``iarmem store``: what a store holds, whether it is sound, and parts of it as files.

A command imports what it needs when it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from iarmem_plugin.cli import console, preflight
from iarmem_plugin.cli import options as opt
from iarmem_plugin.errors import CorruptStoreError, InputError
from iarmem_plugin.progress import progress_bar
from iarmem_plugin.table import TextTable
from iarmem_plugin.text import shown

if TYPE_CHECKING:
    from iarmem_plugin.store.integrity import Damage
    from iarmem_plugin.store.store import ActivationStore

Place = Annotated[str, typer.Argument(help="Path or URL of an activation store.")]
Model = Annotated[
    str | None, typer.Option("--model", help="A model in it; not needed where there is one.")
]
Blocks = Annotated[list[int] | None, typer.Option("--block", help="Block; may be repeated.")]
Scales = Annotated[list[int] | None, typer.Option("--scale", help="Scale, from 0; repeatable.")]
Neurons = Annotated[list[int] | None, typer.Option("--neuron", help="Neuron; repeatable.")]

COLUMNS = (
    "model",
    "blocks",
    "scales",
    "neurons",
    "images",
    "captured",
    "slabs",
    "bytes",
    "damaged",
)

app = typer.Typer(
    help="Look into an activation store: what it holds, what is missing, parts of it as files.",
    no_args_is_help=True,
)


@app.command()
def info(place: Place, as_json: opt.AsJson = False) -> None:
    """Show the models in a store: their sizes, and how much is captured."""
    from iarmem_plugin.store.store import ActivationStore

    store = ActivationStore.open(place)
    rows = [_summary(store, model) for model in store.models]
    table = TextTable(store.name, COLUMNS, map(_cells, rows), numbers=COLUMNS[1:])
    console.show({"store": store.name, "models": rows}, table, as_json=as_json)


@app.command()
def verify(
    place: Place,
    model: Model = None,
    deep: Annotated[bool, typer.Option(help="Read everything, so that checksums speak.")] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Check that all that is marked as captured is there; list what is not."""
    from iarmem_plugin.store.store import ActivationStore

    store = ActivationStore.open(place)
    names = store.models if model is None else (model,)
    groups = [store[name] for name in names]
    for group in groups:
        group.verify_small()
    captured = {group.name: group.captured() for group in groups}
    work = [(group, slab) for group in groups for slab in group.slabs]
    found: list[Damage] = []
    with console.progress_bars() as progress:
        advance = progress_bar(progress, "verify", len(work))
        for group, slab in work:
            found += group.damages_of(slab, captured[group.name], deep=deep)
            advance(1)
    title = f"{store.name}: {len(found)} damaged shards"
    cells = [(one.model, one.slab, one.block, _span(one.images), one.what) for one in found]
    columns = ("model", "slab", "block", "images", "what")
    table = TextTable(title, columns, cells, numbers=columns[1:4])
    console.show(
        {"store": store.name, "damages": [str(one) for one in found]}, table, as_json=as_json
    )
    if found:
        raise CorruptStoreError(f"{len(found)} shards are missing or damaged; {found[0]}")


@app.command()
def invalidate(
    place: Place,
    slab: Annotated[list[int], typer.Option("--slab", help="Number of a slab; repeatable.")],
    model: Model = None,
) -> None:
    """Mark slabs as not captured and delete their data; resuming captures them again."""
    from iarmem_plugin.store import ActivationStore
    from iarmem_plugin.store.resume import write_alone

    store = ActivationStore.open(place, "r+")
    name = store[model].name
    with write_alone(place, name):
        for number in slab:
            store.invalidate(name, number)
    console.say(f"{name}: slabs {store.pending(name)} are to be captured")


@app.command("slice")
def export(
    place: Place,
    out: Annotated[Path, typer.Option("--out", help="File to write: .nc or .npz.")],
    block: Blocks = None,
    scale: Scales = None,
    neuron: Neurons = None,
    model: Model = None,
) -> None:
    """Write the captured activations of some blocks, scales and neurons to a file."""
    from iarmem_plugin.store.export import check_slice_file, read_slice, save_slice
    from iarmem_plugin.store.store import ActivationStore

    check_slice_file(out)
    select = {"block": block, "scale": scale, "neuron": neuron}
    chosen = {dim: numbers for dim, numbers in select.items() if numbers}
    with Console(stderr=True).status("reading"):
        activation = read_slice(ActivationStore.open(place), chosen, model=model)
    save_slice(activation, out)
    sizes = ", ".join(f"{size} {dim}s" for dim, size in activation.sizes.items())
    console.say(f"{out}: {sizes}")


@app.command()
def top(
    place: Place,
    block: Annotated[int, typer.Option(help="Block of the neuron.")],
    neuron: Annotated[int, typer.Option(help="The neuron.")],
    images: Annotated[Path, typer.Option(help="Folder, .npz or .txt that was captured.")],
    out: Annotated[Path, typer.Option("--out", help="Picture to write: .png.")],
    scale: Annotated[int, typer.Option(help="Scale, from 0.")] = 0,
    count: Annotated[int, typer.Option(min=1, max=500, help="Images on the sheet.")] = 20,
    model: Model = None,
    image_root: opt.ImageRoot = None,
) -> None:
    """Draw the images that activate a neuron most as a sheet of pictures."""
    from iarmem_plugin.files import check_file, write_whole
    from iarmem_plugin.report.contact_sheet import contact_sheet, find_pictures
    from iarmem_plugin.report.figures import png
    from iarmem_plugin.store.export import read_slice, top_images
    from iarmem_plugin.store.store import ActivationStore

    check_file(out)
    preflight.check_pictures({"--images": images, "--image-root": image_root})
    if out.suffix != ".png":
        raise InputError(f"{out} is not a .png file; name one")
    place_of = {"block": [block], "scale": [scale], "neuron": [neuron]}
    activation = read_slice(ActivationStore.open(place), place_of, model=model)
    best = top_images(activation.isel(block=0, scale=0, neuron=0), count)
    paths = [str(path) for path in best["image_path"].to_numpy()]
    captions = [
        f"{value:.4f}\n{shown(path, 26)}"
        for value, path in zip(best.to_numpy(), paths, strict=True)
    ]
    title = f"block {block}, scale {shown(best['scale_name'].item(), 40)}, neuron {neuron}"
    sheet = contact_sheet(find_pictures(images, paths, root=image_root), captions, title=title)
    write_whole(out, png(sheet))
    console.say(f"{out}: {len(paths)} images")


def _cells(row: Mapping[str, Any]) -> list[str]:
    done = f"{row['slabs'] - len(row['pending_slabs'])} of {row['slabs']}"
    size, damages = f"{row['bytes']:,}", len(row["damages"])
    cells = {**row, "slabs": done, "bytes": size, "damaged": damages}
    return [str(cells[name]) for name in COLUMNS]


def _span(ends: tuple[int, int]) -> str:
    return f"{ends[0]}-{ends[1]}"


def _summary(store: ActivationStore, model: str) -> dict[str, Any]:
    group = store[model]
    blocks, scales, neurons, images = group.shape
    return {
        "model": model,
        "blocks": blocks,
        "scales": scales,
        "neurons": neurons,
        "images": images,
        "captured": int(group.captured().sum()),
        "slabs": len(group.slabs),
        "pending_slabs": group.pending(),
        "bytes": group.stored_bytes(),
        "keep_bits": group.attributes.get("keep_bits"),
        "capture_fingerprint": group.attributes["capture_fingerprint"],
        "damages": [str(damage) for damage in group.damages(deep=False)],
    }
