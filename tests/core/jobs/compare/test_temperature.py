"""What a comparison draws images with, where a plan does not give it as a number."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces.evaluation import TunedSampling
from iarmem_plugin.jobs.compare import settings
from iarmem_plugin.jobs.compare.material import Material
from iarmem_plugin.jobs.compare.shared import Shared
from iarmem_plugin.jobs.plan.plan import Plan

ARM = {"name": "a", "selector": "highest", "intervention": "zero", "fraction": 0.1}


def plan(temperature: float | str | None) -> Plan:
    document: dict[str, Any] = {
        "model": {"name": "var-organism"},
        "pictures": {"organism": True},
        "arm": [ARM],
        "quality": {} if temperature is None else {"temperature": temperature},
    }
    return Plan.from_document(document)


def found(temperature: float | str | None) -> Any:
    shared, material = Shared.__new__(Shared), Material.__new__(Material)  # neither is asked
    return settings._temperature(plan(temperature), shared, material)


def test_an_organism_without_a_recorded_sampler_cannot_be_drawn_from_as_tuned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings, "organism_of", lambda _: SimpleNamespace(sampler=None))
    with pytest.raises(InputError, match=r"was not recorded of this organism.*give a number"):
        found("tuned")
    assert found(None) is None
    assert found(0.7) == 0.7


def test_an_organism_is_drawn_from_as_it_was_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = TunedSampling.__new__(TunedSampling)
    monkeypatch.setattr(settings, "organism_of", lambda _: SimpleNamespace(sampler=recorded))
    assert found("tuned") is recorded
    assert found(None) is recorded
    assert found(0.7) == 0.7
