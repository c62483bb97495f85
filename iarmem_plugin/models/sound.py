"""What must hold of a model before a number is made with it.

Nothing was added to it, its weights are finite, and what its adapter answers is of the kind, shape
and range that it should.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from iarmem_plugin.checks import check_kind
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.interfaces import Adapter, Condition, ForwardInputs
from iarmem_plugin.interfaces.condition import NO_CLASS
from iarmem_plugin.plugins.blame import author
from iarmem_plugin.text import shown

_BEYOND = 1e-3  # by which a decoded value may leave [0, 1]


def is_finite(tensor: Tensor, *, mask: bool = False) -> bool:
    """Tell whether a tensor holds neither NaN nor infinity; one pass, and no memory of its own.

    Args:
        tensor: numbers of any type; those that are not floating-point are finite.
        mask: whether it may be a mask of attention, in which -inf hides.
    """
    if not tensor.is_floating_point() or tensor.numel() == 0 or tensor.is_meta:
        return True
    low, high = (float(one) for one in tensor.detach().aminmax())  # NaN is passed on
    return math.isfinite(high) and (math.isfinite(low) or (mask and low == -math.inf))


def check_finite(module: nn.Module, what: str) -> None:
    """Refuse a module with NaN or infinity among its weights and buffers.

    Args:
        module: any module; a buffer may hold -inf, as masks do.
        what: name of the module in messages.

    Raises:
        InputError: the first weight that holds some is named.
    """
    wrong = [name for name, weight in module.named_parameters() if not is_finite(weight)]
    wrong += [name for name, one in module.named_buffers() if not is_finite(one, mask=True)]
    if wrong:
        more = f", and {len(wrong) - 1} more do" if len(wrong) > 1 else ""
        raise InputError(
            f"{what} cannot be used: its weight {shown(wrong[0], 80)!r} holds NaN or infinity"
            f"{more}; load sound weights, and in float32 where they come from float16"
        )


def check_told(
    adapter: Adapter, condition: Condition, images: int, *, without_class: bool = False
) -> None:
    """Refuse what a model cannot be told.

    Args:
        adapter: adapter of the model.
        condition: what it is told.
        images: number of images that it is told of.
        without_class: whether the label -1 will do, too, for images of which no class is told.

    Raises:
        InputError: it is no condition, of another number of images, or has labels that are no
            classes of the model.
    """
    check_kind("the condition", condition, Condition, "a Condition, such as Condition.of([3, 5])")
    if len(condition) != images:
        some = "1 image" if len(condition) == 1 else f"{len(condition)} images"
        raise InputError(f"the model was told of {some}, and there are tokens of {images}")
    if "label" in adapter.conditions and images:
        low, high = (int(one) for one in condition.label.aminmax())
        last = adapter.variant.num_classes - 1
        first = NO_CLASS if without_class else 0
        if low < first or high > last:
            wrong = low if low < first else high
            raise InputError(f"the label {wrong} is told; the model has the classes 0 to {last}")


class Answers:
    """Compares what an adapter answers with what it should; nobody is asked twice.

    Types and shapes are compared in every batch, which costs nothing; values in the first one.

    Args:
        adapter: adapter whose answers they are.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._looked_at: set[str] = set()
        self._nothing: Tensor | None = None

    def tokens(self, tokens: Any, images: int) -> Tensor:
        """Return what `tokenize` returned for so many images, known to be tokens of each."""
        if not _is(tokens, lambda one: one.ndim >= 2 and len(one) == images):
            raise self._refusal("tokenize", tokens, f"[image token ...] of {images} images")
        found: Tensor = tokens
        self._nothing = found[:0, :0]
        return found

    def no_tokens(self, images: int, tokenize: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the empty prefix of so many images, of the dtype and dims of the tokens."""
        if self._nothing is None:
            side = self._adapter.variant.resolution
            self._nothing = tokenize(torch.zeros(1, 3, side, side))[:0, :0]
        return self._nothing.new_empty(images, 0, *self._nothing.shape[2:])

    def inputs(self, inputs: Any) -> ForwardInputs:
        """Return what `teacher_forced` returned, known to be arguments."""
        if not isinstance(inputs, ForwardInputs):
            raise self._refusal("teacher_forced", inputs, "ForwardInputs")
        return inputs

    def images(self, images: Any, count: int) -> Tensor:
        """Return what `decode` returned for the tokens of so many images, known to be images."""
        side = self._adapter.variant.resolution
        expected = f"floats in [0, 1], dims [image 3 height width] = {[count, 3, side, side]}"
        if not _is(images, lambda one: _shaped(one, (count, 3, side, side))):
            raise self._refusal("decode", images, expected)
        if self._first("decode", images):
            low, high = (float(one) for one in images.aminmax())
            if low < -_BEYOND or high > 1 + _BEYOND:  # what is not finite is named by its image
                raise self._refusal("decode", f"values from {low:.3g} to {high:.3g}", expected)
        found: Tensor = images
        return found

    def completed(self, tokens: Any, prefix: Tensor) -> Tensor:
        """Return what `complete` returned for a prefix, known to go on from it."""
        count = len(self._adapter.layout.predicting)
        expected = f"{prefix.dtype} [image token ...] of {[len(prefix), count]}, as the prefix is"
        if not _is(tokens, lambda one: _goes_on(one, prefix, count)):
            raise self._refusal("complete", tokens, expected)
        if self._first("complete", prefix) and not torch.equal(
            tokens[:, : prefix.shape[1]], prefix
        ):
            raise self._refusal("complete", "another prefix than it was given", "the same tokens")
        found: Tensor = tokens
        return found

    def logits(self, logits: Any, tokens: Tensor) -> Tensor:
        """Return what `logits` returned, known to be of every token."""
        shape = tuple(tokens.shape[:2])
        if not _is(logits, lambda one: one.ndim == 3 and _shaped(one, (*shape, one.shape[-1]))):
            raise self._refusal("logits", logits, f"floats [image token vocab] of {list(shape)}")
        found: Tensor = logits
        return found

    def predicted(self, found: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `predicted` returned, known to be of every token."""
        shape = tuple(tokens.shape[:2])
        expected = f"whether each token is hit, and its log-likelihood, each {list(shape)}"
        if not isinstance(found, tuple) or len(found) != 2:
            raise self._refusal("predicted", found, expected)
        hit, log_likelihood = found
        if not _is(hit, lambda one: one.shape == shape):
            raise self._refusal("predicted", hit, expected)
        if not _is(log_likelihood, lambda one: _shaped(one, shape)):
            raise self._refusal("predicted", log_likelihood, expected)
        odd = hit.dtype != torch.bool and self._first("predicted", hit)
        if odd and not bool(((hit == 0) | (hit == 1)).all()):
            raise self._refusal("predicted", "hits that are neither 0 nor 1", expected)
        return hit, log_likelihood

    def _first(self, method: str, answer: Tensor) -> bool:
        """Tell whether values are to be looked at: in the first answer that holds some."""
        if method in self._looked_at or answer.numel() == 0:
            return False
        self._looked_at.add(method)
        return True

    def _refusal(self, method: str, given: Any, expected: str) -> PluginError:
        return PluginError(
            f"{type(self._adapter).__name__}.{method} of {author(self._adapter)} returned "
            f"{_described(given)}; expected {expected}"
        )


def _is(answer: Any, fits: Callable[[Tensor], bool]) -> bool:
    return isinstance(answer, Tensor) and fits(answer)


def _shaped(answer: Tensor, shape: tuple[int, ...]) -> bool:
    return answer.is_floating_point() and answer.shape == shape


def _goes_on(tokens: Tensor, prefix: Tensor, count: int) -> bool:
    integers = not any(
        one.dtype == torch.bool or one.is_floating_point() for one in (tokens, prefix)
    )
    longer = tokens.ndim == prefix.ndim and tokens.shape[1] >= prefix.shape[1]
    return (
        (tokens.dtype == prefix.dtype or integers)
        and longer
        and (tokens.shape[0], *tokens.shape[2:]) == (prefix.shape[0], *prefix.shape[2:])
        and tokens.shape[1] == count
    )


def _described(given: Any) -> str:
    if isinstance(given, Tensor):
        return f"{given.dtype} {list(given.shape)}"
    return shown(given, 80) if isinstance(given, str) else f"a {type(given).__name__}"


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
