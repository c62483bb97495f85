"""Load a model by its name, or take an object that the user already holds."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from iarmem_plugin import plugins
from iarmem_plugin.borrowing import generators_kept
from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.interfaces import Adapter
from iarmem_plugin.models.hub import check_files
from iarmem_plugin.models.sound import as_code, check_finite, derived_advice, known_part
from iarmem_plugin.models.tracing import ImageARModel, without_nnsight
from iarmem_plugin.plugins.blame import author, blamed
from iarmem_plugin.text import shown

Precision = Literal["float32", "float16", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@generators_kept()
def load(
    name: str,
    weights: str | Path | None = None,
    tokenizer: str | Path | None = None,
    *,
    files: Mapping[str, str | Path] | None = None,
    device: str = "cpu",
    dtype: Precision | None = None,
    compile: bool = False,
) -> ImageARModel:
    """Load a model by name, ready to be traced.

    Args:
        name: name of a model as listed by ``iarmem models``, such as ``"var-d16"``; or of a
            family, such as ``"var"``, for weights of any size, which is then read from them.
        weights: file of the transformer's weights; a bundled organism needs none, and takes those
            of another that was trained on its pictures, or of itself after an edit.
        tokenizer: file of the image tokenizer's weights; a bundled organism has its own.
        files: files by their role, for a model of more than these two, such as
            ``{"text encoder": path}``.
        device: device as torch names it.
        dtype: precision of the weights; float32 if not given.
        compile: whether torch compiles the tokenizer, at its first calls, which take a minute or
            two; the transformer never, since its activations could then not be read.

    Raises:
        UnknownNameError: no installed adapter knows the model.
        WeightsError: the files are of another model.
        InputError: a file is not there, the precision is not one of these, torch does not have
            the device, or there is no compiler.
    """
    adapter = plugins.families().get(name) or plugins.find_variant(name)[0]
    two = {"weights": weights, "tokenizer": tokenizer}
    named = {role: path for role, path in two.items() if path is not None}
    if twice := sorted(named.keys() & (files or {}).keys()):
        raise InputError(f"the file of the role {twice[0]!r} is named twice; name it once")
    checked = check_files(name, {**named, **(files or {})})
    if dtype not in (None, *PRECISIONS):
        raise InputError(f"no precision {dtype!r}; give one of {', '.join(PRECISIONS)}, in quotes")
    check_device(device)

    precision: torch.dtype = getattr(torch, dtype or "float32")
    with blamed(adapter):
        loaded = adapter.load(name, files=checked, device=device, dtype=precision)
    _check_made(adapter, "load", loaded)
    if compile:
        loaded.compile_tokenizer()
    return ImageARModel(loaded)


def check_device(device: str) -> None:
    """Refuse a device that torch does not have here.

    Raises:
        InputError: saying what there is.
    """
    try:
        kind, index = torch.device(device).type, torch.device(device).index or 0
    except (RuntimeError, ValueError):
        raise _no_device(device, "torch knows no such device") from None
    if kind == "meta":
        raise _no_device(device, "it holds no values")
    if kind == "cuda" and torch.cuda.is_available() and index >= torch.cuda.device_count():
        raise _no_device(device, f"there are {torch.cuda.device_count()} GPUs, counted from 0")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        said = str(error).partition("\n")[0]
        reason = said if len(said) < 120 else f"torch was built without {kind}, or has none here"
        raise _no_device(device, reason) from error


@generators_kept()
def wrap(model: object, tokenizer: object = None) -> ImageARModel:
    """Trace a model object that you already hold.

    The object itself is traced, under its own names; nothing is copied. Flags and modes that a
    run needs are put back after it. Wrappers are taken off first: nnsight's, torch.compile's,
    DataParallel's and DistributedDataParallel's.

    Args:
        model: transformer that an installed adapter recognises by its structure, such as the
            official VAR and RAR objects.
        tokenizer: image tokenizer of the transformer; the official VAR holds its own.

    Raises:
        InputError: no installed adapter recognises the object, or something in it would give
            wrong numbers, such as NaN; the message says what was found and what to do.
    """
    network = unwrapped(model, "the model")
    _check_not_compiled(network)
    other = None if tokenizer is None else unwrapped(tokenizer, "the tokenizer")
    adapter = plugins.recognising(network)
    if adapter is None:
        raise InputError(_unknown(network))
    with blamed(adapter):
        found = adapter.from_model(network, other)
    _check_made(adapter, "from_model", found)
    _check_one_device(found.modules)
    for role, module in found.modules.items():
        check_finite(module, "the model" if role == "network" else f"the {role}")
    return ImageARModel(found)


def _check_made(adapter: type[Adapter], method: str, made: object) -> None:
    if not isinstance(made, Adapter):
        raise PluginError(
            f"{method} of {author(adapter)} returned a {type(made).__name__}; expected an adapter"
        )


def unwrapped(model: object, what: str) -> nn.Module:
    """Return the module inside any number of wrappers.

    Args:
        model: object as the user holds it.
        what: name of the object in messages.

    Raises:
        InputError: it is not a module, or its weights are sharded, quantised or absent.
    """
    inside = model
    while (inner := _inside(inside)) is not inside:
        inside = inner
    if not isinstance(inside, nn.Module):
        kind = type(inside).__name__
        raise InputError(
            f"{what} is of type {kind}, expected a torch.nn.Module{_held_inside(inside)}"
        )
    _check_tensors(inside, what)
    return inside


def _inside(model: object) -> object:
    model = without_nnsight(model)
    if not isinstance(model, nn.Module):
        return model
    for wrapper in ("_orig_mod", "_checkpoint_wrapped_module"):  # torch.compile, checkpointing
        if wrapper in model._modules:
            return model._modules[wrapper]
    if list(model._modules) == ["module"]:  # data parallel, or a wrapper that passes calls on
        return model._modules["module"]
    return model


def _check_tensors(model: nn.Module, what: str) -> None:
    if any("_fsdp_wrapped_module" in module._modules for module in model.modules()):
        raise InputError(f"{what} is sharded (FSDP): hand over an unsharded copy")
    for name, parameter in model.named_parameters():
        wrong = _unusable(parameter)
        if wrong:
            raise InputError(f"{what} cannot be used: its weight {name!r} {wrong}")
    devices = {str(parameter.device) for parameter in model.parameters()}
    if len(devices) > 1:
        raise InputError(f"{what} lies on {', '.join(sorted(devices))}: move all of it to one")


def _check_not_compiled(model: nn.Module) -> None:
    """Refuse parts that are compiled; torch.compile's wrapper of the whole is simply taken off."""
    for name, module in model.named_modules():
        if "_orig_mod" in module._modules:
            part = f"model{as_code(name)}"
            raise InputError(
                f"the model's part {name!r} was compiled by torch.compile: its activations could "
                f"not be read; take it out, {part} = {part}._orig_mod, as every other such part"
            )
        if module._compiled_call_impl is not None:
            raise InputError(
                f"the model's part {name or 'root'!r} was compiled by its method compile(): its "
                "activations could not be read; hand over an object that was not, or a copy of it "
                "by copy.deepcopy, which is not compiled"
            )


def _check_one_device(modules: Mapping[str, nn.Module]) -> None:
    """Refuse modules of one model on several devices."""
    devices = {
        role: str(tensor.device)
        for role, module in modules.items()
        for tensor in [next(chain(module.parameters(), module.buffers()), None)]
        if tensor is not None
    }
    if len(set(devices.values())) > 1:
        places = ", ".join(f"the {role} on {device}" for role, device in devices.items())
        raise InputError(f"the model's parts lie on several devices ({places}): move all to one")


def _unusable(weight: nn.Parameter) -> str:
    if type(weight) is not nn.Parameter:
        kind = type(weight).__name__
        return f"is a {kind}, expected a plain parameter: gather the shards, or do not quantise it"
    if not weight.is_floating_point() or weight.element_size() < 2:  # float8
        return f"is of type {weight.dtype}: hand over the model before it is quantised"
    if weight.is_meta:
        return "has no values (meta device): load the weights, without offloading them"
    if weight.is_inference():
        return "was made under torch.inference_mode(): build and load the model outside it"
    return ""


def _unknown(model: nn.Module) -> str:
    kind = type(model).__name__
    inside = _held_inside(model)
    if inside:
        return f"this {kind} is not itself a model that an installed adapter recognises{inside}"
    looked = [f"{one.name}: {one.recognises or 'its own classes'}" for one in _adapters()]
    parts = ", ".join(list(model._modules)[:8]) or "none"
    return (
        f"no installed adapter recognises this {kind} (its parts: {parts}){_advice(model)}; "
        f"the adapters look for: {'; '.join(looked) or 'none are installed'}"
    )


def _held_inside(model: object) -> str:
    """Say which attribute of an object, such as a pipeline, holds a model that is known."""
    known = known_part(model, lambda part: plugins.recognising(part) is not None)
    if known is None:
        return ""
    part = f"model{known}"
    advice = _advice(model) if isinstance(model, nn.Module) else ""
    return f"; it holds one: hand over {part}, and its tokenizer where it has one{advice}"


def _advice(model: nn.Module) -> str:
    return derived_advice(name for name, _ in model.named_parameters())


def _adapters() -> list[type[Adapter]]:
    return [plugins.find("adapter", name) for name in plugins.names("adapter")]


def _no_device(device: str, reason: str) -> InputError:
    return InputError(f"cannot use device {shown(device, 40)!r}: {reason}; try 'cpu'")
