"""Hostile adapters and modules: each ends in an error that names it, or cannot do what it tries."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from iarmem_plugin import plugins
from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.images import Images
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.extraction import extract, make_targets
from iarmem_plugin.evaluation.ranking.passes import rank_candidates
from iarmem_plugin.evaluation.similarity import TokenAgreement
from iarmem_plugin.interfaces import (
    Condition,
    Similarity,
)
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.models import loading
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.plugins import registry
from iarmem_plugin.testing.tiny import TinyAdapter
from iarmem_plugin.testing.tiny_model import TinyNetwork, TinyTokenizer

from .hostile import HOSTILE, Do, boom, give, leave, refuse, refused, same


@pytest.fixture
def few(pictures: Images) -> Images:
    return pictures.subset(range(4))


def extracted(model: ImageARModel, few: Images, similarity: Similarity) -> xr.Dataset:
    candidates = Candidates(few, np.full(len(few), "candidate"))
    targets = make_targets(model, candidates, model.adapter.variant.views)
    return extract(
        model, candidates, targets, similarity=similarity, prefix_tokens=1, batch_size=2
    ).drop_attrs()


# Adapters.


def wrap(method: str, do: Callable[[Do, tuple[Any, ...]], Any]) -> ImageARModel:
    """Return a model whose adapter does one thing its own way."""

    def own(self: Any, *given: Any, **named: Any) -> Any:
        return do(lambda *args: getattr(TinyAdapter, method)(self, *args, **named), given)

    bad = type("Hostile", (TinyAdapter,), {"name": HOSTILE, "__module__": __name__, method: own})
    honest = TinyAdapter.make()
    return ImageARModel(bad(honest.network, honest.tokenizer))


def everything(model: ImageARModel, few: Images) -> xr.Dataset:
    """Return scores, hits and an extraction of a model."""
    told, found = Condition.of_images(few), extracted(model, few, TokenAgreement())
    tokens = torch.from_numpy(found["tokens"].to_numpy()).long()
    with model.borrowed():
        logits, (hit, log_likelihood) = (
            model.logits(tokens, told),
            model.predicted(tokens, told),
        )
    dims = ("candidate", "token")
    scores = localize(model, few, options=CaptureOptions(views=2, batch_size=2))["score"]
    return found.assign(
        hit=(dims, hit.numpy()),
        log_likelihood=(dims, log_likelihood.numpy()),
        logits=((*dims, "vocab"), logits.numpy()),
        score=scores.drop_vars("image", errors="ignore"),
    )


ANSWERS = ("tokenize", "decode", "teacher_forced", "complete", "logits", "predicted")


@pytest.mark.parametrize("do", [boom, refuse, leave, give(None), give((1, 2))])
@pytest.mark.parametrize("method", ANSWERS)
def test_a_hostile_adapter_is_named(few: Images, method: str, do: Do) -> None:
    refused(lambda: everything(wrap(method, do), few))


ODD: dict[str, tuple[str, Do]] = {
    "tokens of one image": ("tokenize", lambda own, given: own(*given)[:1]),
    "images twice as large": ("decode", lambda own, given: own(*given).repeat(1, 1, 2, 2)),
    "images up to 255": ("decode", lambda own, given: own(*given) * 255),
    "images of bytes": ("decode", lambda own, given: own(*given).byte()),
    "inputs without tokens": (
        "teacher_forced",
        lambda own, given: replace(own(*given), args=own(*given).args[:1]),
    ),
    "another prefix": ("complete", lambda own, given: own(*given).flip(1)),
    "tokens too few": ("complete", lambda own, given: own(*given)[:, :-1]),
    "floats for tokens": ("complete", lambda own, given: own(*given).float()),
    "logits of one token": ("logits", lambda own, given: own(*given)[:, :1]),
    "hits that are numbers": ("predicted", lambda own, given: (given[1] + 2, own(*given)[1])),
    "no likelihood": ("predicted", lambda own, given: (own(*given)[0],)),
}


@pytest.mark.parametrize(("method", "do"), ODD.values(), ids=ODD)
def test_what_an_adapter_answers_wrongly_is_named(few: Images, method: str, do: Do) -> None:
    refused(lambda: everything(wrap(method, do), few))


def ranked(model: ImageARModel, few: Images) -> Candidates:
    return rank_candidates(model, few, model.adapter.variant.views, per_class=1, batch_size=2)


def test_images_that_are_not_finite_are_named(few: Images) -> None:
    model = wrap("decode", lambda own, given: own(*given) * torch.nan)
    refused(lambda: extracted(model, few, TokenAgreement()))


def test_likelihoods_that_are_not_finite_are_named(few: Images) -> None:
    model = wrap("predicted", lambda own, given: (own(*given)[0], own(*given)[1] * torch.nan))
    refused(lambda: ranked(model, few))


def wiping(own: Do, given: tuple[Any, ...]) -> Any:
    found = deepcopy(own(*given))  # which may be a part of what was given
    for one in given:
        if isinstance(one, Condition):
            one.label.zero_(), one.image.zero_()
        elif isinstance(one, torch.Tensor):
            one.zero_()
    return found


@pytest.mark.parametrize("method", ANSWERS)
def test_an_adapter_that_writes_changes_nothing(few: Images, method: str) -> None:
    honest = everything(wrap(method, lambda own, given: own(*given)), few)
    same(everything(wrap(method, wiping), few), honest)


@pytest.mark.parametrize("method", ["tokenize", "decode", "complete"])
def test_an_adapter_may_reuse_its_memory(few: Images, method: str) -> None:
    kept: dict[Any, torch.Tensor] = {}

    def reuse(own: Do, given: tuple[Any, ...]) -> torch.Tensor:
        found = own(*given)
        return kept.setdefault(found.shape, torch.empty_like(found)).copy_(found)

    honest = everything(wrap(method, lambda own, given: own(*given)), few)
    same(everything(wrap(method, reuse), few), honest)


@pytest.mark.parametrize("made", [boom, refuse, leave, give(None), give(TinyNetwork)])
def test_a_hostile_from_model_is_named(monkeypatch: pytest.MonkeyPatch, made: Do) -> None:
    bad = type("Hostile", (TinyAdapter,), {"name": HOSTILE, "from_model": classmethod(made)})
    monkeypatch.setattr(plugins, "recognising", lambda _: bad)
    refused(lambda: loading.wrap(TinyNetwork(), TinyTokenizer()))


@pytest.mark.parametrize("method", ["matches", "variants"])
@pytest.mark.parametrize("do", [boom, refuse, leave, give("yes"), give({1: 2})])
def test_an_adapter_that_cannot_say_what_it_is_is_named(
    monkeypatch: pytest.MonkeyPatch, method: str, do: Do
) -> None:
    monkeypatch.setenv(plugins.STRICT, "1")
    bad = type("Hostile", (TinyAdapter,), {"name": HOSTILE, method: classmethod(do)})
    one = registry.Provided("adapter", HOSTILE, HOSTILE, bad)
    monkeypatch.setattr(registry, "_provided", lambda _: (one,))
    asked = {"matches": lambda: plugins.recognising(nn.Linear(1, 1)), "variants": plugins.variants}
    refused(asked[method])


# Whole modules.

HOOK = "from iarmem_plugin import hookimpl, Selector\n@hookimpl\ndef provide_selectors():\n "
MODULES = {
    "cannot be imported": "import no_such_module",
    "exits": "import sys; sys.exit(0)",
    "has an error of syntax": "def :",
    "raises in its hook": HOOK + "1 / 0",
    "exits in its hook": HOOK + "raise SystemExit",
    "gives None": HOOK + "return None",
    "gives text": HOOK + "return 'highest'",
    "gives an instance": HOOK + "return [Selector]",
    "gives another kind": HOOK + "return [dict]",
    "misspells its hook": HOOK.replace("selectors", "selector") + "return []",
    "clashes": "from iarmem_plugin.neurons.selectors import Highest\n"
    + HOOK
    + "return [type('Mine', (Highest,), {'name': 'highest'})]",
}


@pytest.mark.parametrize("source", MODULES.values(), ids=MODULES)
def test_a_hostile_module_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(plugins.STRICT, "1")
    module = f"module_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(source)

    def listed() -> object:
        manager = plugins.make_manager(entry_points=[EntryPoint(HOSTILE, module, "iarmem")])
        return plugins.provided("selector", manager)

    refused(listed)


def test_a_slow_module_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("iarmem_plugin.plugins.loading.SLOW_SECONDS", 0.0)
    (tmp_path / f"slow_{tmp_path.name}.py").write_text("")
    entry = EntryPoint(HOSTILE, f"slow_{tmp_path.name}", "iarmem")
    with pytest.warns(plugins.PluginWarning, match=f"plugin '{HOSTILE}' took"):
        plugins.make_manager(entry_points=[entry])
