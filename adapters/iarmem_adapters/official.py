"""Use an object that is not ours: look inside, set what a run needs, put back what was there."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iarmem_adapters.checkpoints.filling import differing_names, listed
from iarmem_plugin.errors import InputError
from iarmem_plugin.models.sound import derived_advice

WORDS = ("lacks the weights", "has the unknown weights")


@contextmanager
def attributes_set(changes: Iterable[tuple[object, str, object]]) -> Iterator[None]:
    """Give attributes other values for a while, exception or not.

    Args:
        changes: triples of an owner, the name of its attribute and the value for the while.
    """
    before: list[tuple[object, str, object]] = []
    try:
        for owner, name, value in changes:
            before.append((owner, name, getattr(owner, name)))
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)


def evaluating(*models: nn.Module) -> list[tuple[object, str, object]]:
    """Return the changes that put models into evaluation mode, see `attributes_set`."""
    return [(module, "training", False) for model in models for module in model.modules()]


@contextmanager
def generators_kept(device: torch.device) -> Iterator[None]:
    """Put the random number generators back: torch's of the CPU and of a device, and Python's."""
    state = random.getstate()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(state)


def has_parts(model: nn.Module, paths: Iterable[str]) -> bool:
    """Tell whether a model has parts of these dotted names, whatever they are."""
    return all(_has(model, path) for path in paths)


def require_parts(model: nn.Module, paths: Iterable[str], *, where: str = "") -> None:
    """Refuse an object that lacks something that a run sets or calls.

    Args:
        model: the object.
        paths: dotted names of attributes, of any depth.
        where: name of the object itself, for the message.

    Raises:
        InputError: one of them is not there.
    """
    for path in paths:
        if not _has(model, path):
            raise InputError(
                f"the object has no {f'{where}.{path}'.lstrip('.')}, which the authors' has: hand "
                "over one that their code built, or its weight file to iarmem_plugin.load"
            )


def _has(owner: Any, path: str) -> bool:
    for name in path.split("."):
        if not hasattr(owner, name):
            return False
        owner = getattr(owner, name)
    return True


Sizes = TypeVar("Sizes")


def read_sizes(read: Callable[[dict[str, Tensor]], Sizes], model: nn.Module, what: str) -> Sizes:
    """Return the sizes that `read` finds in an object's state dict.

    Raises:
        InputError: entries that are missing, or of shapes that make no sense.
    """
    try:
        return read(dict(model.state_dict()))
    except KeyError as error:
        advice = derived_advice(model.state_dict())
        raise InputError(
            f"this object is not a {what}: it lacks the weight {error}{advice}"
        ) from error
    except (IndexError, ValueError) as error:
        raise InputError(f"this object is not a {what}: {error}") from error


def compare_entries(model: nn.Module, expected: Mapping[str, Tensor], what: str) -> None:
    """Refuse an object whose state dict has other names or shapes.

    Args:
        model: the object.
        expected: state dict of a plain model of its sizes.
        what: name of the plain model in messages.

    Raises:
        InputError: names are missing, unknown or of another shape.
    """
    found = model.state_dict()
    differing = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    missing = [key for key in expected if key not in found]
    unknown = [key for key in found if key not in expected]
    advice = derived_advice(found) or (
        "; hand over the original, since a model derived from it needs an adapter of its own"
    )
    problem = differing_names(missing, unknown, WORDS)
    if differing and not problem:
        problem = f"has other sizes: {listed(differing)}"
    if problem:
        raise InputError(f"this object is not quite {what}: it {problem}{advice}")


def check_attribute(
    owner: nn.Module,
    path: str,
    expected: object,
    cure: str,
    read: Callable[[Any], object] = lambda value: value,
    *,
    where: str = "",
) -> None:
    """Refuse an object one of whose attributes has another value.

    Args:
        owner: the object.
        path: dotted name of the attribute, of any depth.
        expected: the only right value.
        cure: advice to the user.
        read: function that makes values comparable, such as `tuple` for lists.
        where: name of the owner itself, for the message.

    Raises:
        InputError: the attribute is not there, or differs.
    """
    name = f"{where}.{path}".lstrip(".")
    value: Any = owner
    for step in path.split("."):
        if not hasattr(value, step):
            raise InputError(f"the object has no {name}; expected {expected}: {cure}")
        value = getattr(value, step)
    if read(value) != expected:
        raise InputError(f"{name} is {value}, expected {expected}: {cure}")


def check_mask(model: Any, name: str, expected: Float[Tensor, "... element"], build: str) -> None:
    """Refuse a transformer whose elements would see others than in the published model.

    Raises:
        InputError: the mask of that name differs.
    """
    if not torch.equal(getattr(model, name).float().cpu(), expected):
        raise InputError(f"{name} hides other tokens than the published model's mask does: {build}")


def check_dtype(model: nn.Module, what: str, cure: str) -> None:
    """Refuse weights in another precision than float32.

    Raises:
        InputError: some weight is of another type.
    """
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise InputError(
                f"{what} works with float32 weights only, and {name!r} is of type "
                f"{parameter.dtype}: {cure}"
            )


def check_devices(model: nn.Module, tokenizer: nn.Module) -> None:
    """Refuse a model and a tokenizer on different devices.

    Raises:
        InputError: the devices differ.
    """
    first, second = (next(part.parameters()).device for part in (model, tokenizer))
    if first != second:
        raise InputError(
            f"the model is on {first}, its tokenizer on {second}: moving one does not move the "
            f"other; call tokenizer.to({str(first)!r})"
        )
