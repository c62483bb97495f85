"""Adapters that are wrong, each in one way, and a right one; run by `test_kit.py`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from iarmem_plugin.interfaces import (
    Adapter,
    Checkpoint,
    Condition,
    ForwardInputs,
    Sampling,
    Site,
    Variant,
)
from iarmem_plugin.testing import AdapterTests, TinyAdapter

LAWS = {  # the law that names each of them
    "PeeksAtItsToken": "law_2",
    "ReversesTheTokens": "law_2",
    "ForgetsTheFirstToken": "law_3_later",
    "ForgetsTheClass": "law_3_predictions",
    "ChangesThePrefix": "law_4",
    "DecodesFromMinusOne": "law_5",
    "HasBlockZeroEverywhere": "law_6_an_edited_neuron",
    "CompletesRoundTheEdit": "law_6_completion",
    "CompletesBySomethingElse": "law_1",
    "PredictsElsewhere": "law_1",
    "SaysFewerTokens": "law_8",
    "SaysAnotherSize": "law_8",
    "IgnoresSampling": "law_7",
    "MatchesEverything": "law_9",
    "DescribesNonsense": "law_9",
    "ReadsWhatIsNoNeuron": "the_neurons_are_what",
    "CapturesElsewhere": "law_2_neurons",
    "ForgetsHowManyClasses": "law_3_every_class",
    "TellsAllWhatTheFirstIs": "law_3_predictions",
    "ReadsWhatItDoesNotDeclare": "law_3_predictions",
    "DrawsTokens": "law_5_tokens",
    "TokenizesTheBatch": "law_5_tokens",
    "DecodesTheBatch": "law_5_tokens",
    "SaysFewerBlocks": "law_8",
    "MatchesUsualNames": "law_9",
    "CopiesItsCheckpoint": "a_checkpoint",
    "AddsToAll": "a_vector_beside_the_class",
    "AddsInPassesAlone": "a_vector_beside_the_class",
    "AddsWithoutGradients": "gradients_arrive",
    "AddsNoise": "zeros_beside_the_class",
}


class PeeksAtItsToken(TinyAdapter):
    """Teacher forcing off by one: each scale is shown itself, and not those before it."""

    def teacher_forced(self, tokens: Tensor, condition: Condition) -> ForwardInputs:
        later = torch.cat((tokens[:, 1:], tokens[:, :1]), 1)
        return super().teacher_forced(later, condition)


class ReversesTheTokens(TinyAdapter):
    def teacher_forced(self, tokens: Tensor, condition: Condition) -> ForwardInputs:
        return super().teacher_forced(tokens.flip(1), condition)


class ForgetsTheFirstToken(TinyAdapter):
    def teacher_forced(self, tokens: Tensor, condition: Condition) -> ForwardInputs:
        return super().teacher_forced(_without_first(tokens), condition)

    def complete(self, prefix: Tensor, condition: Condition, sampling: Sampling) -> Tensor:
        if prefix.shape[1] == 0:
            return super().complete(prefix, condition, sampling)
        whole = super().complete(_without_first(prefix), condition, sampling)
        return torch.cat((prefix, whole[:, prefix.shape[1] :]), 1)


class ForgetsTheClass(TinyAdapter):
    def teacher_forced(self, tokens: Tensor, condition: Condition) -> ForwardInputs:
        return super().teacher_forced(tokens, Condition.of(condition.label * 0))

    def complete(self, prefix: Tensor, condition: Condition, sampling: Sampling) -> Tensor:
        return super().complete(prefix, Condition.of(condition.label * 0), sampling)


class ChangesThePrefix(TinyAdapter):
    def complete(self, prefix: Tensor, condition: Condition, sampling: Sampling) -> Tensor:
        whole = super().complete(prefix, condition, sampling)
        return torch.cat((whole[:, 1:], whole[:, :1]), 1)


class DecodesFromMinusOne(TinyAdapter):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(*parts)
        with torch.no_grad():
            self.tokenizer.decoder[1].weight *= 50  # black and white, as pictures are

    def decode(self, tokens: Tensor) -> Tensor:
        return super().decode(tokens) * 2 - 1


class HasBlockZeroEverywhere(TinyAdapter):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(*parts)
        blocks = self.network.blocks
        self.network.blocks = nn.ModuleList([blocks[0]] * len(blocks))
        count = sum(one.numel() for one in self.network.parameters())
        self.variant = replace(self.variant, parameters=count)


class CompletesRoundTheEdit(TinyAdapter):
    """Completes with a copy of the network, as a generator with compiled weights would."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(*parts)
        self.copy = TinyAdapter.make()

    def complete(self, prefix: Tensor, condition: Condition, sampling: Sampling) -> Tensor:
        return self.copy.complete(prefix, condition, sampling)


class CompletesBySomethingElse(TinyAdapter):
    """Forgets the class when it completes."""

    def complete(self, prefix: Tensor, condition: Condition, sampling: Sampling) -> Tensor:
        return super().complete(prefix, Condition.of((condition.label + 2) % 5), sampling)


class PredictsElsewhere(TinyAdapter):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(*parts)
        shifted = (*range(1, 21), 0)
        self.layout = replace(self.layout, predicting=shifted)


class SaysFewerTokens(TinyAdapter):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(*parts)
        self.layout = replace(
            self.layout, predicting=range(5), scales=self.layout.scales[:2], ranked_tokens=4
        )


class SaysAnotherSize(TinyAdapter):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(*parts)
        self.variant = replace(self.variant, neurons=512)


class IgnoresSampling(TinyAdapter):
    def complete(self, prefix: Tensor, condition: Condition, sampling: Sampling) -> Tensor:
        return super().complete(prefix, condition, Sampling())


class MatchesEverything(TinyAdapter):
    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        return isinstance(model, nn.Module)


class DescribesNonsense(TinyAdapter):
    @classmethod
    def variants(cls) -> Mapping[str, Variant]:
        tiny = TinyAdapter.variants()["tiny"]
        return {"tiny": tiny, "huge": replace(tiny, blocks=0)}


class ReadsWhatIsNoNeuron(TinyAdapter):
    """Names what comes before the activation function."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(*parts)
        site = Site("blocks.{block}.ffn.fc1", "output")
        self.layout = replace(self.layout, mlp=replace(self.layout.mlp, neuron=site))


class CapturesElsewhere(TinyAdapter):
    """Knows where its logits are, and says another place in the layout."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(*parts)
        self.layout = replace(self.layout, predicting=(*range(1, 21), 0))

    def logits(self, output: Tensor, tokens: Tensor) -> Tensor:
        return output


class ForgetsHowManyClasses(TinyAdapter):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(*parts)
        self.variant = replace(self.variant, num_classes=1000)


class TellsAllWhatTheFirstIs(TinyAdapter):
    def teacher_forced(self, tokens: Tensor, condition: Condition) -> ForwardInputs:
        return super().teacher_forced(tokens, _all_first(condition))

    def complete(self, prefix: Tensor, condition: Condition, sampling: Sampling) -> Tensor:
        return super().complete(prefix, _all_first(condition), sampling)


class ReadsWhatItDoesNotDeclare(TinyAdapter):
    """Takes -1, which pictures without classes have, for a class."""

    conditions = frozenset()

    def teacher_forced(self, tokens: Tensor, condition: Condition) -> ForwardInputs:
        return super().teacher_forced(tokens, Condition.of(condition.label.clamp(min=0)))

    def complete(self, prefix: Tensor, condition: Condition, sampling: Sampling) -> Tensor:
        return super().complete(prefix, Condition.of(condition.label.clamp(min=0)), sampling)


class DrawsTokens(TinyAdapter):
    def tokenize(self, images: Tensor) -> Tensor:
        tokens = super().tokenize(images)
        return torch.where(torch.rand(tokens.shape) < 0.2, tokens.flip(1), tokens)


class TokenizesTheBatch(TinyAdapter):
    def tokenize(self, images: Tensor) -> Tensor:
        return super().tokenize((images - images.mean() + 0.5).clamp(0, 1))


class DecodesTheBatch(TinyAdapter):
    def decode(self, tokens: Tensor) -> Tensor:
        images = super().decode(tokens)
        return (images + images[:1]) / 2  # as a buffer that is not cleared does


class SaysFewerBlocks(TinyAdapter):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(*parts)
        fewer = self.layout.num_blocks - 1
        self.layout = replace(self.layout, num_blocks=fewer)
        self.variant = replace(self.variant, blocks=fewer)


class MatchesUsualNames(TinyAdapter):
    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        return hasattr(model, "blocks")


class CopiesItsCheckpoint(TinyAdapter):
    """What is edited is not what is written."""

    @classmethod
    def checkpoint(cls, variant: str, weights: Path | None) -> Checkpoint:
        found = super().checkpoint(variant, weights)
        copied = {key: one.clone() for key, one in found.state.items()}
        return replace(found, content=copied, state=copied)


class AddsToAll(TinyAdapter):
    def condition_embedding(self, added: Tensor) -> AbstractContextManager[None]:
        return super().condition_embedding(added.mean(0).expand_as(added))


class AddsInPassesAlone(TinyAdapter):
    def complete(self, prefix: Tensor, condition: Condition, sampling: Sampling) -> Tensor:
        hooks, kept = self._classes._forward_hooks, dict(self._classes._forward_hooks)
        hooks.clear()
        completed = super().complete(prefix, condition, sampling)
        hooks.update(kept)
        return completed


class AddsWithoutGradients(TinyAdapter):
    def condition_embedding(self, added: Tensor) -> AbstractContextManager[None]:
        return super().condition_embedding(added.detach())


class AddsNoise(TinyAdapter):
    def condition_embedding(self, added: Tensor) -> AbstractContextManager[None]:
        return super().condition_embedding(added + 0.1)


def _all_first(condition: Condition) -> Condition:
    return Condition.of(condition.label[:1].expand(len(condition)))


def _without_first(tokens: Tensor) -> Tensor:
    return torch.cat((torch.zeros_like(tokens[:, :1]), tokens[:, 1:]), 1)


def _tests_of(kind: type[TinyAdapter], law: str) -> type[AdapterTests]:
    """Return the kit for one of them: what the law has, which is all that it must fail by."""

    class Tests(AdapterTests):
        @pytest.fixture
        def adapter(self) -> Adapter:
            return kind.make()

        @pytest.fixture
        def weights(self, tmp_path: Path) -> Path:
            torch.save(kind.make().network.state_dict(), tmp_path / "tiny.pth")
            return tmp_path / "tiny.pth"

    for name in dir(AdapterTests):
        if name.startswith("test_") and not name.startswith(f"test_{law}"):
            setattr(Tests, name, None)
    Tests.__name__ = Tests.__qualname__ = f"Test{kind.__name__}"
    return Tests


for _name, _law in {"TinyAdapter": "", **LAWS}.items():
    globals()[f"Test{_name}"] = _tests_of(globals()[_name], _law)
