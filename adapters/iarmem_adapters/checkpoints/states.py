"""The dictionaries of tensors in what a file holds, under their plain names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from torch import Tensor

from iarmem_plugin.errors import WeightsError

State = dict[str, Tensor]
Keys = tuple[str | int, ...]

MAX_DEPTH = 100
_WRAPPERS = (  # what torch puts between or before the names of a wrapped module's entries
    "module",  # DataParallel and DistributedDataParallel
    "_orig_mod",  # torch.compile
    "_checkpoint_wrapped_module",  # activation checkpointing
    "_fsdp_wrapped_module",
)


@dataclass(frozen=True, slots=True)
class Held:
    """One dictionary of tensors in a file.

    Attributes:
        keys: what leads to it in the file's content.
        prefix: what all of its names begin with in the file, such as ``"module."``.
        state: its tensors by their names, out of that prefix and of all wrappers' names.
        names: name in the file of each of them.
    """

    keys: Keys
    prefix: str
    state: State
    names: Mapping[str, str]

    @property
    def place(self) -> str:
        """Where the tensors are, such as ``"trainer.var_wo_ddp"``; ``""`` is the file itself."""
        return ".".join((*map(str, self.keys), self.prefix)).strip(".")

    def below(self, prefix: str) -> Held:
        """Return the entries whose names begin with a prefix, without it."""
        if not prefix:
            return self
        inside = [key for key in self.state if key.startswith(prefix)]
        short = {key: key.removeprefix(prefix) for key in inside}
        return replace(
            self,
            prefix=self.prefix + prefix,
            state={short[key]: self.state[key] for key in inside},
            names={short[key]: self.names[key] for key in inside},
        )


def find_states(content: object, path: Path) -> list[Held]:
    """Return all dictionaries of tensors in the content of a file, those outside first.

    Each object is looked into once; one that lies at several places is returned for each.

    Args:
        content: what was read: nested dictionaries and lists.
        path: file that it was read from, for messages.

    Raises:
        WeightsError: a dictionary holds itself, or they are nested too deep.
    """
    found: list[Held] = []
    seen: dict[int, Held | None] = {}
    waiting: list[tuple[object, Keys, tuple[int, ...]]] = [(content, (), ())]
    while waiting:
        value, keys, above = waiting.pop()
        _check_nesting(id(value) in above, keys, path)
        if id(value) not in seen:
            seen[id(value)] = _held(value, keys)
            within = [(one, (*keys, key), (*above, id(value))) for key, one in _inside(value)]
            waiting.extend(reversed(within))
        held = seen[id(value)]
        if held is not None:
            found.append(replace(held, keys=keys))
    return found


def _check_nesting(circular: bool, keys: Keys, path: Path) -> None:
    if circular or len(keys) > MAX_DEPTH:
        problem = "holds itself" if circular else f"is nested more than {MAX_DEPTH} deep"
        raise WeightsError(
            f"{path} is not a weight file: a dictionary in it {problem}; save its state dict alone"
        )


def _inside(value: object) -> Iterator[tuple[str | int, object]]:
    """Yield what a dictionary or list holds that may hold tensors."""
    pairs: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, (list, tuple)):
        pairs = enumerate(value)
    for key, one in pairs:
        if isinstance(key, (str, int)) and isinstance(one, (dict, list, tuple)):
            yield key, one


def _held(value: object, keys: Keys) -> Held | None:
    if not isinstance(value, dict):
        return None
    tensors = {
        key: one for key, one in value.items() if isinstance(key, str) and isinstance(one, Tensor)
    }
    if not tensors:
        return None
    plain = {key: _without_wrappers(key) for key in tensors}
    if len(set(plain.values())) < len(plain):  # two names would become one
        plain = {key: key for key in tensors}
    state = {plain[key]: one for key, one in tensors.items()}
    names = {short: key for key, short in plain.items()}
    return Held(keys, _leading_wrappers(plain), state, names)


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS) or name


def _leading_wrappers(plain: Mapping[str, str]) -> str:
    """Return the wrappers' names that all names begin with."""
    first, short = next(iter(plain.items()))
    wrappers = takewhile(_WRAPPERS.__contains__, first.split("."))
    prefix = "".join(f"{wrapper}." for wrapper in wrappers)
    taken_off = short != first
    return prefix if taken_off and all(name.startswith(prefix) for name in plain) else ""
