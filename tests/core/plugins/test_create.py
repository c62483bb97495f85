"""A name and parameters become the object that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from iarmem_plugin import plugins
from iarmem_plugin.errors import InputError, PluginError, UnknownNameError
from iarmem_plugin.plugins.create import create, create_intervention, create_similarity


def test_each_instance_is_new() -> None:
    assert create("selector", "highest") is not create("selector", "highest")
    assert create("selector", "lowest", {"pool": "block"}).parameters["pool"] == "block"


def test_what_needs_more_than_is_given_is_to_be_made_in_python() -> None:
    with pytest.raises(InputError, match=r"similarity 'sscd' cannot be made here: .*; use it in"):
        create("similarity", "sscd")


def test_a_factor_is_refused_where_there_is_none() -> None:
    with pytest.raises(InputError, match="takes no factor"):
        create_intervention("zero", 0.5)
    assert create_intervention("zero", None).name == "zero"
    assert create_intervention("scale-weights", 0.25).parameters == {"factor": 0.25}
    with pytest.raises(UnknownNameError, match="scale-weights"):
        create_intervention("halve", None)


def test_a_similarity_gets_the_file_that_it_needs_and_no_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--sscd FILE"):
        create_similarity("sscd", None)
    with pytest.raises(InputError, match="takes no file"):
        create_similarity("correlation", tmp_path)
    assert create_similarity("correlation", None).name == "correlation"


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_a_threshold_is_a_finite_number(threshold: float) -> None:
    with pytest.raises(InputError, match="expected a finite number"):
        create_similarity("correlation", None, threshold=threshold)


def test_a_given_threshold_takes_the_place_of_the_measures_own() -> None:
    similarity = create_similarity("token-agreement", None, threshold=0.75)
    assert (similarity.threshold, similarity.threshold_source) == (0.75, "given by the user")


def test_what_a_strangers_class_raises_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise KeyError("acme")

    monkeypatch.setattr(plugins.find("selector", "highest"), "__init__", broken)
    with pytest.raises(PluginError, match="selector 'highest' failed when it was made, with KeyE"):
        create("selector", "highest")
