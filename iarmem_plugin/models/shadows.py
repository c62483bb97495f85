"""What nnsight puts into the modules of a network: found, looked after, and taken off again."""

from __future__ import annotations

from typing import Any

from torch import nn

from iarmem_plugin.errors import WeightsError
from iarmem_plugin.interfaces import ModelLayout
from iarmem_plugin.neurons.slices import check_maps

_FORWARD, _STATE = "forward", "__nnsight__"  # what nnsight puts into a module's __dict__
_BEFORE = "__iarmem_forward__"  # what stood there before one of our wrappers; None for nothing


class Shadows:
    """The shadows that one wrapper needs: nnsight's controllers in the place of ``forward``.

    They are shared: those of another wrapper of the same modules stay when these are taken off,
    whoever made it.

    Args:
        network: network to be wrapped, before nnsight wraps it.
        layout: names of the modules that hold neurons.
        advice: how to build the network without fused kernels, in a few words.

    Raises:
        WeightsError: a module that the layout names is not there, has no weights yet, or has
            weights of other sizes than the layout says.
    """

    def __init__(self, network: nn.Module, layout: ModelLayout, advice: str) -> None:
        _check_paths(network, layout)
        check_maps(network, layout)
        self._modules = list(network.modules())
        self._taken_off = False
        self._links = _links(network, layout)
        self._reads, self._advice = tuple(layout.mlp.reads), f" ({advice})" if advice else ""
        self._lost = [one for one in map(_prepared, self._modules) if one is not None]

    def put_on(self) -> None:
        """Let wrappers whose shadows were lost be reached again, now that nnsight has wrapped."""
        for module, routes in self._lost:
            module.__dict__[_STATE].routes[:0] = routes
        self._lost = []

    def take_off(self, interleaver: object) -> None:
        """Take off those that no other living wrapper needs, and put back what they hid."""
        self._taken_off = True
        for module in self._modules:
            own = module.__dict__
            if (state := own.get(_STATE)) is None:
                continue
            state.routes = [one for one in state.routes if one[0]() not in (None, interleaver)]
            if not state.routes and _BEFORE in own:
                _restore(own)

    def unreached(self, interleaver: object, path: str, block: int, *, called: bool) -> str:
        """Say why the neurons of a block were not reached.

        Args:
            interleaver: nnsight's, of that wrapper.
            path: path of the module that was waited for.
            block: number of the block.
            called: whether the model called that module.
        """
        if found := self.obstacle(interleaver):
            return f"neurons can be neither read nor edited: {found}"
        name = path.format(block=block)
        if called:
            return (
                f"the model called {name!r} before another map that is named first: reads must be "
                "named in the order in which the block calls them, and are named "
                f"{', '.join(self._reads)}"
            )
        return (
            f"the model never called {name!r}: a fused MLP computes it without the "
            f"module, so its neurons can be neither read nor edited; build the model "
            f"without fused kernels{self._advice}"
        )

    def obstacle(self, interleaver: object) -> str:
        """Say what keeps a wrapper from the neurons; nothing if it reaches them all.

        Args:
            interleaver: nnsight's, of that wrapper.
        """
        if self._taken_off:
            return "this model was unwrapped: wrap the network again"
        for path, (parent, name, module, watched) in self._links.items():
            if getattr(parent, name, None) is not module:
                return f"{path!r} was replaced after the model was wrapped: wrap it again"
            if watched and (found := _in_the_way(module, interleaver)):
                return f"{path!r} {found}"
        return ""


def block_path(layout: ModelLayout) -> str:
    """Return the path of a block, with ``{block}`` for its number."""
    return layout.mlp.writes.path.partition("{block}")[0] + "{block}"


def _prepared(module: nn.Module) -> tuple[nn.Module, list[Any]] | None:
    """Note what a module's ``forward`` is; return whom it no longer serves, where it is lost."""
    own = module.__dict__
    state = own.get(_STATE)
    if state is not None and (_attached(own) or "_hf_hook" in own):
        return None
    own[_BEFORE] = own.get(_FORWARD)
    if state is None:
        return None
    del own[_STATE]  # nnsight would take it for a shadow that is there, and serve nobody
    return module, list(state.routes)


def _restore(own: dict[str, Any]) -> None:
    before, attached = own.pop(_BEFORE), _attached(own)
    del own[_STATE]
    if attached:  # else it is someone else's by now
        del own[_FORWARD]
    if attached and before is not None:
        own[_FORWARD] = before


def _attached(own: dict[str, Any]) -> bool:
    return _STATE in own and getattr(own.get(_FORWARD), "state", None) is own[_STATE]


def _in_the_way(module: nn.Module, interleaver: object) -> str:
    own = module.__dict__
    for one in own[_STATE].routes if _attached(own) else ():
        other = one[0]()
        if other is interleaver:
            return ""
        if other is not None and other.interleaving and other.busy:
            return "is read by a trace of another nnsight model: end that one first"
    return (
        "is out of nnsight's sight, since its `forward` was deleted or replaced after the model "
        "was wrapped: wrap it again"
    )


def _links(
    network: nn.Module, layout: ModelLayout
) -> dict[str, tuple[nn.Module, str, nn.Module, bool]]:
    """Return, for every module on the way to neurons, where it hangs and whether it is needed."""
    paths = (block_path(layout), *layout.mlp.paths)
    watched = {path.format(block=block) for path in paths for block in range(layout.num_blocks)}
    found: dict[str, tuple[nn.Module, str, nn.Module, bool]] = {}
    for whole in sorted(watched):
        parent, steps = network, whole.split(".")
        for depth, name in enumerate(steps, 1):
            path = ".".join(steps[:depth])
            module = parent.get_submodule(name)
            found[path] = (parent, name, module, path in watched)
            parent = module
    return found


def _check_paths(network: nn.Module, layout: ModelLayout) -> None:
    for block in range(layout.num_blocks):
        for path in layout.mlp.paths:
            name = path.format(block=block)
            try:
                module = network.get_submodule(name)
            except AttributeError as error:
                message = f"the model has no module {name!r}, which holds neurons"
                raise WeightsError(message) from error
            if next((p for p in module.parameters() if p.is_meta), None) is not None:
                raise WeightsError(f"{name!r} has no weights yet (meta device); load them first")
