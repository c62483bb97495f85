"""The wrapped model: reading and editing its neurons through nnsight."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Shaped
from nnsight import NNsight
from nnsight.intervention.envoy import Envoy
from nnsight.intervention.interleaver import OutOfOrderError
from torch import Tensor, nn

from iarmem_plugin.borrowing import by_one_thread, evaluating, generators_kept
from iarmem_plugin.errors import BypassedNeuronsError
from iarmem_plugin.interfaces import (
    Adapter,
    Condition,
    ForwardInputs,
    ModelLayout,
    Sampling,
    Scale,
    Site,
)
from iarmem_plugin.models.reduction import scale_means
from iarmem_plugin.models.shadows import Shadows
from iarmem_plugin.models.sound import Answers, check_told
from iarmem_plugin.models.trace_edits import (
    TraceEdit,
    Watch,
    check_with_edits,
    edited_entries,
)
from iarmem_plugin.neurons.editing import EditableWeights, WeightEdits
from iarmem_plugin.plugins.blame import blamed, blamed_if_not_finite


class ImageARModel(NNsight):  # type: ignore[misc]  # nnsight is untyped
    """An image autoregressive model that nnsight can trace.

    ``with model.trace(...)`` works as on any nnsight model; `neurons` reads the reduced
    activations inside it. Completion and prediction run through the trace, so an edit made
    with `intervene` always takes effect. What an adapter returns is compared with what it
    should, see `Answers`.

    Wrapping shadows ``forward`` of the network's modules and changes nothing else; `unwrap`
    takes that back when no other wrapper of the network is left.

    Args:
        adapter: adapter whose network is wrapped.

    Raises:
        WeightsError: a module that the adapter's layout names is not there, or its weight has
            other sizes, or lies the other way round, than the layout says.
    """

    def __init__(self, adapter: Adapter) -> None:
        network = adapter.network
        self._shadows = Shadows(network, adapter.layout, adapter.fused_advice)
        super().__init__(network, rename=dict(adapter.module_aliases))
        self._shadows.put_on()
        self._adapter = adapter
        self._layout = adapter.layout
        self._answers = Answers(adapter)
        self._overlay: tuple[TraceEdit, ...] = ()
        self._weight_edits = WeightEdits.of(EditableWeights(network, adapter.layout))

    @property
    def adapter(self) -> Adapter:
        """The model's adapter; on an edited model, its ``complete`` is the edited one."""
        if not self._edits:
            return self._adapter
        shown = copy.copy(self._adapter)
        setattr(shown, "complete", self.complete)  # noqa: B010  # mypy refuses a plain assignment
        return shown

    @property
    def layout(self) -> ModelLayout:
        """Where the neurons are, and which tokens each scale is the mean over."""
        return self._layout

    def with_scales(self, scales: Sequence[Scale]) -> ImageARModel:
        """Return the same model, to be captured at other scales; nothing is copied.

        Args:
            scales: new scales, such as ``[model.layout.band("first row", range(1, 17))]``.

        Raises:
            InputError: an image does not have these tokens, or two scales have one name.
        """
        shown = cast(ImageARModel, self._shallow_copy())
        shown._layout = self._layout.with_scales(scales)
        return shown

    def tokenize(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Shaped[Tensor, "image token *rest"]:
        """Turn RGB images in [0, 1] into tokens; no gradients are recorded."""
        with torch.no_grad(), blamed(self._adapter):
            tokens = self._adapter.tokenize(self._own(images))
        return self._answers.tokens(tokens, len(images)).clone()

    def decode(
        self, tokens: Shaped[Tensor, "image token *rest"]
    ) -> Float[Tensor, "image 3 height width"]:
        """Turn tokens into RGB images in [0, 1]; no gradients are recorded."""
        with torch.no_grad(), blamed(self._adapter):
            images = self._adapter.decode(self._own(tokens))
        return self._answers.images(images, len(tokens)).clone()

    def no_tokens(self, images: int) -> Shaped[Tensor, "image 0 *rest"]:
        """Return the empty prefix of so many images, from which they are generated."""
        return self._answers.no_tokens(images, self.tokenize)

    def complete(
        self,
        prefix: Shaped[Tensor, "image prefix *rest"],
        condition: Condition,
        sampling: Sampling,
    ) -> Shaped[Tensor, "image token *rest"]:
        """Complete a token prefix through the trace, so that edits take effect.

        Args:
            prefix: first tokens of each image; no tokens to generate freely.
            condition: what the model is told of each image.
            sampling: how the other tokens are chosen.

        Returns:
            all tokens of each image, the prefix included.
        """
        run = partial(self._adapter.complete, sampling=sampling)
        if self.interleaver.interleaving:  # called as the function that a trace runs
            return run(prefix, condition)
        watch, given = self._watch(), (self._own(prefix), self._told(condition, len(prefix)))
        with blamed(self._adapter):
            completed = self.interleave(run, *given)
        tokens = self._answers.completed(completed, prefix.to(self.device)).clone()
        self._check_edits(watch, visited=tokens.shape[1] > prefix.shape[1])
        return tokens

    def logits(
        self, tokens: Shaped[Tensor, "image token *rest"], condition: Condition
    ) -> Float[Tensor, "image token vocab"]:
        """Return the logits that predict each token, teacher-forced through the trace.

        Args:
            tokens: ground-truth tokens of each image.
            condition: what the model is told of each image.
        """
        with blamed(self._adapter):
            logits = self._adapter.logits(self._forced(tokens, condition), self._own(tokens))
        return self._answers.logits(logits, tokens)

    def predicted(
        self, tokens: Shaped[Tensor, "image token *rest"], condition: Condition
    ) -> tuple[Bool[Tensor, "image token"], Float[Tensor, "image token"]]:
        """Return how well each token is predicted; arguments are those of `logits`.

        Returns:
            whether the true token is the likeliest, and its log-likelihood.
        """
        with blamed(self._adapter):
            found = self._adapter.predicted(self._forced(tokens, condition), self._own(tokens))
        return self._answers.predicted(found, tokens)

    def _forced(self, tokens: Tensor, condition: Condition) -> Any:
        inputs = self.teacher_forced(tokens, condition)
        with self._adapter.prepared():
            return self(*inputs.args, **inputs.kwargs)

    def teacher_forced(
        self, tokens: Shaped[Tensor, "image token *rest"], condition: Condition
    ) -> ForwardInputs:
        """Return the arguments with which ``forward`` predicts ground-truth tokens."""
        told = self._told(condition, len(tokens), without_class=self._adapter.without_class)
        with blamed(self._adapter):
            inputs = self._adapter.teacher_forced(self._own(tokens), told)
        return self._answers.inputs(inputs)

    def _told(self, condition: Condition, images: int, *, without_class: bool = False) -> Condition:
        """Return a copy of a condition on the model's device, if the model can be told it."""
        check_told(self._adapter, condition, images, without_class=without_class)
        return condition.copy(self.device)

    def _own(self, values: Tensor) -> Tensor:
        """Return a copy on the model's device, so that an adapter may write into it."""
        return values.to(self.device, copy=True)

    def neurons(self) -> Float[Tensor, "image block scale neuron"]:
        """Read all blocks' activations, inside a teacher-forced trace of this model.

        Returns:
            float32 mean over each scale's tokens of what the MLP's outgoing map reads, absolute.
            Save it to keep it: ``nnsight.save(model.neurons())``.

        Reference: arXiv 2509.00488, section 3.2.
        """
        layout, site = self.layout, self.layout.mlp.site
        positions = {scale.name: layout.positions(scale) for scale in layout.scales}
        modules = (self._module_at(site.path, block) for block in range(layout.num_blocks))
        read = (getattr(module, site.side) for module in modules)
        return torch.stack([scale_means(values, positions) for values in read], dim=1)

    def read_neurons(self, inputs: ForwardInputs) -> Float[Tensor, "image block scale neuron"]:
        """Run one teacher-forced pass and return `neurons`; nothing after them is computed.

        Args:
            inputs: what the adapter's `teacher_forced` returned.

        Raises:
            BypassedNeuronsError: the model does not call the modules of its MLPs.
        """
        kept: list[Tensor] = []

        def body() -> None:
            kept.append(self.neurons())
            raise _AllRead

        watch = self._watch()
        try:
            with blamed(self._adapter), self._adapter.prepared():
                _trace(self, inputs, body)
        except OutOfOrderError as error:
            raise unreached(self, self.layout.mlp.site.path, 0) from error
        except _AllRead:
            self._check_edits(watch, visited=True)
        return kept[0]

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the network's state dict, of this model as it computes: with its edits.

        Entries that are edited are copies, so they stay as they are when the edit is over.

        Args:
            args: what the network's own ``state_dict`` takes.
            kwargs: the same by name.

        Raises:
            InputError: the edit is made by the trace, and its weights have no entry of their own;
                or it is an edit of values, which has no weights.
        """
        self._weight_edits.settle()
        state: dict[str, Any] = self._adapter.network.state_dict(*args, **kwargs)
        return state | edited_entries(
            state,
            self._layout,
            self._overlay,
            copied=self._weight_edits.blocks,
            prefix=kwargs.get("prefix", ""),
        )

    @contextmanager
    def borrowed(self) -> Iterator[ImageARModel]:
        """Use the model in evaluation mode without gradients, and put everything back.

        Modes and the random number generators come back as they were, exception or not.

        Raises:
            InputError: another thread uses the network.
        """
        own, parts = self._adapter, self._adapter.modules.values()
        with by_one_thread(own.network):
            self._weight_edits.settle()
            kept, named = generators_kept(self.device), blamed_if_not_finite(own)
            with kept, torch.no_grad(), evaluating(parts), own.prepared(), named:
                yield self

    def unwrap(self) -> nn.Module:
        """Take nnsight's shadows off the network and return it; the model is then of no use.

        They stay where another wrapper of the network still needs them.
        """
        self._shadows.take_off(self.interleaver)
        return self._adapter.network

    def interleave(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a function of the network with the edits of this model; see nnsight.

        Raises:
            BypassedNeuronsError: something keeps the edits from taking effect.
        """
        with by_one_thread(self._adapter.network):
            self._weight_edits.settle()
            if self._overlay and (found := self._shadows.obstacle(self.interleaver)):
                raise BypassedNeuronsError(f"an edit of this model cannot act: {found}")
            return super().interleave(fn, *args, **kwargs)

    def _watch(self) -> Watch:
        return Watch(self._overlay, self._visits)

    def _visits(self, site: Site, block: int) -> int:
        path = self._module_at(site.path, block).path
        return int(self.interleaver.counts.get(f"{path}.{site.side}", 0))

    def _check_edits(self, watch: Watch, *, visited: bool) -> None:
        missed = watch.missed(visited=visited)
        if missed is not None:
            raise unreached(self, *missed)

    def _module_at(self, path: str, block: int) -> Any:
        return self.get(path.format(block=block))

    def __call__(self, *args: Any, hook: bool = False, **kwargs: Any) -> Any:
        """Run ``forward``, with the edits of this model; nnsight's own call would skip them."""
        if self.interleaver.interleaving or hook:
            return super().__call__(*args, hook=hook, **kwargs)
        watch = self._watch()
        output = self.interleave("__call__", *args, **kwargs)
        self._check_edits(watch, visited=True)
        return output

    def __getattr__(self, name: str) -> Any:
        """Return what the network has of that name, but for what would leave edits out."""
        check_with_edits(name, self.__dict__.get("_overlay", ()))
        return super().__getattr__(name)


OutOfOrder = OutOfOrderError  # nnsight's: a module is waited for that was not called


class _AllRead(Exception):  # noqa: N818  # not an error: it ends the pass
    """Ends a pass after the last neuron."""


def without_nnsight(model: object) -> object:
    """Return the module inside an nnsight model, or what was given."""
    return model._module if isinstance(model, Envoy) else model


@contextmanager
def wrapped(adapter: Adapter) -> Iterator[ImageARModel]:
    """Wrap an adapter's network for a while; afterwards ``forward`` is no longer shadowed."""
    model = ImageARModel(adapter)
    try:
        yield model
    finally:
        model.unwrap()


def _trace(
    model: ImageARModel, inputs: ForwardInputs, body: Callable[[], None]
) -> None:  # pragma: no cover  # lines in a traced block escape coverage
    with model.trace(*inputs.args, **inputs.kwargs):
        body()


def unreached(
    model: ImageARModel, path: str, block: int, before: Mapping[str, int] | None = None
) -> BypassedNeuronsError:
    """Return the error that says why the neurons of a block were not reached.

    Args:
        model: model that ran.
        path: path of the module that was waited for.
        block: number of the block.
        before: how often each site was visited before the run; None where that does not matter.
    """
    key, counts = f"{model._module_at(path, block).path}.input", model.interleaver.counts
    called = before is not None and counts.get(key, 0) > before.get(key, 0)
    return BypassedNeuronsError(
        model._shadows.unreached(model.interleaver, path, block, called=called)
    )
