"""Take a model object that the user already holds, out of every wrapper it is in."""

from __future__ import annotations

from torch import nn

from iarmem_plugin import plugins
from iarmem_plugin.errors import InputError
from iarmem_plugin.models.tracing import ImageARModel, without_nnsight


def wrap(model: object, tokenizer: object = None) -> ImageARModel:
    """Trace a model object that you already hold.

    The object itself is traced, under its own names; nothing is copied. Flags and modes that a
    run needs are put back after it. Wrappers are taken off first: nnsight's, torch.compile's,
    DataParallel's and DistributedDataParallel's.

    Args:
        model: a transformer that an installed adapter recognises by its structure, such as the
            official VAR and RAR objects.
        tokenizer: its image tokenizer; the official VAR holds its own.

    Raises:
        InputError: no installed adapter recognises the object, or something in it would give
            wrong numbers; the message says what was found and what to do.
    """
    network = unwrapped(model, "the model")
    _check_not_compiled(network)
    other = None if tokenizer is None else unwrapped(tokenizer, "the tokenizer")
    for adapter in plugins.adapters().values():
        if adapter.matches(network):
            return ImageARModel(adapter.from_model(network, other))
    raise InputError(_unknown(network))


def unwrapped(model: object, what: str) -> nn.Module:
    """Return the module inside any number of wrappers.

    Args:
        model: the object as the user holds it.
        what: names it in messages.

    Raises:
        InputError: it is no module, or its weights are sharded, quantised or absent.
    """
    inside = model
    while (inner := _inside(inside)) is not inside:
        inside = inner
    if not isinstance(inside, nn.Module):
        raise InputError(f"{what} is of type {type(inside).__name__}, expected a torch.nn.Module")
    _check_tensors(inside, what)
    return inside


def _inside(model: object) -> object:
    model = without_nnsight(model)
    if not isinstance(model, nn.Module):
        return model
    if "_orig_mod" in model._modules:  # torch.compile
        return model._modules["_orig_mod"]
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
    """Refuse modules that are compiled in place; torch.compile's wrapper is simply taken off."""
    for name, module in model.named_modules():
        if module._compiled_call_impl is not None:
            raise InputError(
                f"the model's part {name or 'root'!r} was compiled by its method compile(): its "
                "activations could not be read; hand over an object that was not, or a copy of it "
                "by copy.deepcopy, which is not compiled"
            )


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
    looked = [
        f"{adapter.name}: {adapter.recognises or 'its own classes'}"
        for adapter in plugins.adapters().values()
    ]
    parts = ", ".join(list(model._modules)[:8]) or "none"
    return (
        f"no installed adapter recognises this {type(model).__name__} (its parts: {parts}); "
        f"the adapters look for: {'; '.join(looked) or 'none are installed'}"
    )
