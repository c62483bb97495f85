"""A tokenizer whose encoder and decoder are compiled."""

from __future__ import annotations

from torch import nn

from iarmem_plugin.errors import InputError


def compile_tokenizer(tokenizer: nn.Module, *, backend: str = "inductor") -> None:
    """Compile a tokenizer's encoder and decoder in place, at their first call.

    Weights and their names stay. Never compile a transformer: nnsight sees no activations inside
    a compiled graph, or breaks it at every module.

    Args:
        tokenizer: of any family.
        backend: torch's name of the compiler; "inductor" needs a C++ compiler, or Triton on a GPU.

    Raises:
        InputError: the module has no encoder and decoder, so is no tokenizer.
    """
    parts = [getattr(tokenizer, name, None) for name in ("encoder", "decoder")]
    modules = [part for part in parts if isinstance(part, nn.Module)]
    if len(modules) != len(parts):
        raise InputError(
            f"got a {type(tokenizer).__name__}, expected a tokenizer with encoder and decoder: "
            "transformers are not compiled, since their activations could then not be read"
        )
    for module in modules:
        module.compile(backend=backend)
