"""A tokenizer whose encoder and decoder are compiled."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys

from torch import nn

from iarmem_plugin.errors import InputError


def compile_tokenizer(tokenizer: nn.Module, *, backend: str = "inductor") -> None:
    """Compile a tokenizer's encoder and decoder in place, at their first call.

    Weights and their names stay. Never compile a transformer: nnsight sees no activations inside
    a compiled graph, or breaks it at every module.

    Args:
        tokenizer: tokenizer of any family.
        backend: name of the compiler in torch; "inductor" needs a C++ compiler, or Triton on a GPU.

    Raises:
        InputError: the module has no encoder and decoder, so is not a tokenizer; or what "inductor"
            needs is not installed.
    """
    parts = [getattr(tokenizer, name, None) for name in ("encoder", "decoder")]
    modules = [part for part in parts if isinstance(part, nn.Module)]
    if len(modules) != len(parts):
        raise InputError(
            f"got a {type(tokenizer).__name__}, expected a tokenizer with encoder and decoder: "
            "transformers are not compiled, since their activations could then not be read"
        )
    if backend == "inductor":
        _check_compiler(next(tokenizer.parameters()).device.type)
    for module in modules:
        module.compile(backend=backend)


def _check_compiler(device: str) -> None:
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        raise InputError("cannot compile for cuda without triton: install it, or do not compile")
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if device == "cpu" and sys.platform != "win32" and shutil.which(compiler) is None:
        raise InputError(
            f"cannot compile: found no C++ compiler {compiler!r}; install one, name another in "
            "the environment variable CXX, or do not compile"
        )
