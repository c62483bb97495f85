"""What a model object is a part of, or made of: wrappers around it, and what was added to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from torch import nn

_ADDED = (  # what stands in the names of weights, and how it is taken back
    (
        (".lora_", ".base_layer.", ".lora_magnitude_vector"),
        "merge the adapters first, such as by model = model.merge_and_unload()",
    ),
    (
        (".parametrizations.",),
        "remove the parametrizations first, by torch.nn.utils.parametrize.remove_parametrizations",
    ),
    ((".weight_orig", ".bias_orig"), "remove the pruning first, by torch.nn.utils.prune.remove"),
)


def derived_advice(names: Iterable[str]) -> str:
    """Return what to do about weights that were added to a model, told by their names.

    Returns:
        ``"; merge the adapters first, …"`` or the like; nothing for ordinary names.
    """
    marked = [f".{name}." for name in names]
    for signs, advice in _ADDED:
        if any(sign in name for name in marked for sign in signs):
            return f"; {advice}"
    return ""


def known_part(model: object, matches: Callable[[nn.Module], bool]) -> str | None:
    """Return the attribute of an object that holds a model, as Python writes it.

    Args:
        model: any object, such as a pipeline around a model.
        matches: tells a model.

    Returns:
        an expression such as ``".generator"`` or ``".nets[0]"``; None where no part matches.
    """
    for path, part in _parts(model):
        if matches(part):
            return as_code(path)
    return None


def as_code(path: str) -> str:
    """Return what reaches a module of a dotted name, such as ``".blocks[0].attn"``."""
    steps = path.split(".")
    return "".join(f"[{step}]" if step.isdigit() else f".{step}" for step in steps)


def _parts(model: object) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(model, nn.Module):
        yield from ((path, part) for path, part in model.named_modules() if path)
    for name, value in dict(getattr(model, "__dict__", {})).items():
        if isinstance(value, nn.Module):
            for path, part in value.named_modules():
                yield f"{name}.{path}".rstrip("."), part
