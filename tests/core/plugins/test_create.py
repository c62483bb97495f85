"""A name and options become the object that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from iarmem_plugin import plugins
from iarmem_plugin.errors import InputError, PluginError, UnknownNameError
from iarmem_plugin.evaluation.similarity import check_threshold
from iarmem_plugin.plugins.create import check, create


def test_each_instance_is_new() -> None:
    assert create("selector", "highest") is not create("selector", "highest")


@pytest.mark.parametrize(
    ("text", "parameters", "key"),
    [
        ("highest", {"pool": "model", "scales": "mean", "by": "score"}, "highest"),
        ("highest:pool=block", {"pool": "block"}, "highest(pool=block)"),
        ("highest:scales='0,1',by=score", {"scales": ["0", "1"]}, "highest(scales=[0,1])"),
        ("highest:pool=model", {"pool": "model"}, "highest"),
    ],
)
def test_options_are_written_after_the_name(
    text: str, parameters: dict[str, object], key: str
) -> None:
    made = create("selector", text)
    assert dict(made.parameters) | parameters == made.parameters
    assert made.key == key


def test_numbers_are_read_as_numbers() -> None:
    assert create("intervention", "scale-weights:factor=0.25").parameters == {"factor": 0.25}
    assert create("metric", "random:seed=3").key == "random(seed=3)"


def test_what_is_offered_is_taken_where_there_is_such_an_option() -> None:
    offered = {"factor": 2.0, "device": "cuda"}
    assert create("intervention", "scale-weights", offered).parameters == {"factor": 2.0}
    assert create("intervention", "scale-weights:factor=3", offered).parameters == {"factor": 3.0}
    assert create("intervention", "zero", offered).parameters == {}


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("intervention", "scale-weights:factr=1", "has no option 'factr'; it has: factor (float, "),
        ("intervention", "scale-weights:factor=x", "factor=x; expected float; it has: factor (fl"),
        ("intervention", "zero:factor=1", "has no option 'factor'; it has: no options"),
        ("metric", "random:seed=1.5", "was given seed=1.5; expected int; it has: seed (int, 0)"),
        ("metric", "random:seed", "write NAME:KEY=VALUE,KEY=VALUE"),
        ("metric", "random:", "write NAME:KEY=VALUE,KEY=VALUE"),
        ("metric", "random:seed=1,seed=2", "each key once"),
        ("metric", ":seed=1", "write NAME:KEY=VALUE,KEY=VALUE"),
        ("similarity", "sscd", "needs file: sscd:file=...; it has: file (file, required), sha256"),
        ("quality", "fid", "needs extractor: fid:extractor=..."),
    ],
)
def test_what_cannot_be_meant_is_one_line_that_lists_what_there_is(
    kind: plugins.Kind, text: str, message: str
) -> None:
    with pytest.raises(InputError) as refused:
        check(kind, text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(UnknownNameError, match="scale-weights"):
        create("intervention", "halve:factor=2")


def test_the_files_that_are_named_are_known_before_anything_is_made() -> None:
    assert check("similarity", "sscd:file=a/b.pt") == {"sscd:file": Path("a/b.pt")}
    assert check("similarity", "correlation:threshold=0.5") == {}


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_a_threshold_is_a_finite_number(threshold: float) -> None:
    with pytest.raises(InputError, match="expected a finite number"):
        check_threshold(threshold)
    with pytest.raises(InputError, match="expected a finite number"):
        create("similarity", f"correlation:threshold={threshold}")


def test_what_a_strangers_class_raises_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise KeyError("acme")

    monkeypatch.setattr(plugins.find("selector", "highest"), "__init__", broken)
    message = r"selector 'highest' of iarmem .* failed when it was made, with KeyError"
    with pytest.raises(PluginError, match=message):
        create("selector", "highest")
