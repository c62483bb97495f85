"""Plans to begin with: files with comments, shipped with the package."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

import tomlkit

from iarmem_plugin import plugins
from iarmem_plugin.errors import InputError, UnknownNameError
from iarmem_plugin.files import check_file, write_whole
from iarmem_plugin.report.published.beside import published_lines
from iarmem_plugin.text import shown

PUBLISHED = "# (what was published of the model)"
_FOLDER = resources.files("iarmem_plugin.jobs.plan").joinpath("presets")


def presets() -> dict[str, str]:
    """Return the presets by name, each with what its first line says."""
    files = {one.name: one for one in _FOLDER.iterdir() if one.name.endswith(".toml")}
    names = sorted(name.removesuffix(".toml") for name in files if name.count(".") == 1)
    lines = {name: files[f"{name}.toml"].read_text(encoding="utf-8") for name in names}
    return {name: text.partition("\n")[0].lstrip("# ") for name, text in lines.items()}


def preset_text(name: str, model: str | None = None) -> str:
    """Return the file of a preset.

    Args:
        name: name of the preset.
        model: model that is filled in, with its twin where the preset has one; a family may have a
            preset of its own.

    Raises:
        UnknownNameError: no such preset, or model.
        InputError: the preset has a twin, and the model none.
    """
    if name not in presets():
        raise UnknownNameError(
            f"no preset named {shown(name, 60)!r}; there are: {', '.join(presets())}"
        )
    if model is None:
        text = _FOLDER.joinpath(f"{name}.toml").read_text(encoding="utf-8")
        return _with_published(text, str(tomlkit.parse(text)["model"]["name"]))
    family = plugins.families().get(model) or plugins.find_variant(model)[0]
    own = _FOLDER.joinpath(f"{name}.{family.name}.toml")
    file = own if own.is_file() else _FOLDER.joinpath(f"{name}.toml")
    document: Any = tomlkit.parse(file.read_text(encoding="utf-8"))
    default, document["model"]["name"] = str(document["model"]["name"]), model
    if "twin" in document:
        document["twin"]["name"] = _twin_of(model)
    return _with_published(str(document.as_string()), model, default)


def _with_published(text: str, model: str, default: str = "") -> str:
    """Say in comments what was published of the model, where the preset has a place for it."""
    lines = [f"# {one}" for one in published_lines(model)] or ["# nothing of this model"]
    if default and published_lines(model):  # released files are called alike
        text = text.replace(f'"{default.replace("-", "_")}.', f'"{model.replace("-", "_")}.')
    return text.replace(f"{PUBLISHED}\n", "\n".join(["# Published:", *lines, ""]))


def write_preset(name: str, path: str | Path, *, model: str | None = None) -> Path:
    """Write the file of a preset, which is then filled in by hand; nothing is replaced.

    Args:
        name: name of the preset.
        path: file to write.
        model: model that is filled in.

    Returns:
        the file.

    Raises:
        UnknownNameError: no such preset, or model.
        InputError: there is something of that name, or it cannot be written.
    """
    file = Path(path)
    text = preset_text(name, model)
    check_file(file)
    if os.path.lexists(file):
        raise InputError(f"{shown(file)} is there already, and is not overwritten; name a new file")
    if file.suffix != ".toml":
        raise InputError(f"{shown(file)} is not a .toml file; name one")
    write_whole(file, text.encode())
    return file


def _twin_of(model: str) -> str:
    twins = {one.twin_of: name for name, (_, one) in plugins.variants().items() if one.twin_of}
    if model not in twins:
        raise InputError(
            f"the preset has a twin, and {shown(model, 60)} has none; there are: "
            f"{', '.join(map(str, twins))}"
        )
    return twins[model]
