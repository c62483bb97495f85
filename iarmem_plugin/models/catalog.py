"""The models that can be loaded, as rows of a table."""

from __future__ import annotations

from typing import Any

from iarmem_plugin import plugins
from iarmem_plugin.interfaces import Variant
from iarmem_plugin.models.hub import present

COLUMNS = (
    "model",
    "family",
    "blocks",
    "neurons",
    "parameters",
    "pixels",
    "licence",
    "here",
)
FILE_COLUMNS = ("model", "file", "hosted")


def rows() -> list[dict[str, Any]]:
    """Return what is known about each model, by name; nothing is downloaded or loaded.

    Returns:
        for each model ``present``: whether its files are bundled or in the hub's cache; and in
        ``paths`` where they are in that cache. Files elsewhere are not looked for.
    """
    return [_row(variant) for _, variant in plugins.variants().values()]


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row's cells for a person, one a column of `COLUMNS`."""
    return (
        row["name"],
        row["family"],
        f"{row['blocks']}",
        f"{row['neurons']:,}",
        f"{row['parameters'] / 1e6:,.1f} M",
        f"{row['resolution']}",
        row["licence"],
        "yes" if row["present"] else "no",
    )


def file_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row's files, the transformer's first, and their hosts, one of `FILE_COLUMNS`."""
    hosted = "\n".join(row["repositories"]) or row["source"]
    return row["name"], "\n".join(row["files"]), hosted


def _row(variant: Variant) -> dict[str, Any]:
    paths = present(variant)
    return {
        "name": variant.name,
        "family": variant.family,
        "blocks": variant.blocks,
        "neurons": variant.neurons,
        "parameters": variant.parameters,
        "resolution": variant.resolution,
        "files": list(variant.files),
        "repositories": list(variant.repositories),
        "source": variant.source,
        "licence": variant.licence,
        "present": variant.organism is not None or paths is not None,
        "paths": [] if paths is None else [str(path) for path in paths],
    }
