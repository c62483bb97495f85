"""A constructor's signature is all that a plugin needs to have options."""

from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from iarmem_plugin.errors import InputError, PluginError
from iarmem_plugin.interfaces import Intervention, NeuronWeights
from iarmem_plugin.plugins.options import Option, Written, listed, options


class Noise(Intervention):
    """Add noise.

    Args:
        std: standard deviation of the noise,
            of every weight. It is drawn anew.
        seed: seed for drawing.
    """

    name = "noise"

    def __init__(
        self,
        std: float = 1.0,
        *,
        seed: int = 0,
        exact: bool = False,
        side: Literal["in", "out"] = "in",
        file: Path | str | None = None,
        blocks: tuple[int, ...] = (),
        bounds: tuple[float, float] = (0.0, 1.0),
        label=None,  # type: ignore[no-untyped-def]  # as some authors write
        network: torch.nn.Module | None = None,
    ) -> None:
        self.std = std

    def edit(self, neurons: NeuronWeights) -> NeuronWeights:
        """Return them."""
        return neurons


class Plain(Noise):
    """Nothing to be set."""

    name = "plain"

    def __init__(self) -> None:
        super().__init__(std=3.0)


def made(text: str) -> Noise:
    return Noise(**Written.of(text).values(Noise))  # type: ignore[arg-type]  # values by name


def option(name: str) -> Option:
    return next(one for one in options(Noise) if one.name == name)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("noise:std=2", "std", 2.0),
        ("noise:std=1e-3", "std", 0.001),
        ("noise:seed=3", "seed", 3),
        ("noise:exact=true", "exact", True),
        ("noise:exact=no", "exact", False),
        ("noise:side=out", "side", "out"),
        ("noise:file=none", "file", None),
        ("noise:blocks='1,2,3'", "blocks", [1, 2, 3]),
        ("noise:blocks=4", "blocks", [4]),
        ('noise:bounds="0.5,2"', "bounds", [0.5, 2.0]),
        ("noise:label=a:b c", "label", "a:b c"),
        ("noise:label=a=b,seed=1", "label", "a=b"),
        ("noise:label='a,b', seed=1", "label", "a,b"),
        ("noise:label=it's", "label", "it's"),
        ("noise:std=inf", "std", "inf"),
    ],
)
def test_a_text_is_read_by_its_annotation(text: str, name: str, value: object) -> None:
    found = made(text).parameters[name]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    ["noise:seed=1.0", "noise:exact=2", "noise:side=up", "noise:blocks='1,x'", "noise:bounds=1"],
)
def test_a_value_of_another_type_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"; expected .*; it has: std"):
        made(text)


def test_what_cannot_be_typed_is_for_python_only() -> None:
    assert option("network").form == "in Python only"
    with pytest.raises(InputError, match="expected in Python only"):
        made("noise:network=x")


def test_options_are_shown_with_type_default_and_what_the_docstring_says() -> None:
    assert option("std").shown == "std (float, 1.0)"
    assert option("side").form == "in or out"
    assert option("file").form == "file or none"
    assert option("std").does == "standard deviation of the noise, of every weight"
    assert option("seed").does == "seed for drawing"
    assert listed(Plain) == "it has: no options"


def test_the_same_settings_have_one_key_however_they_are_written() -> None:
    assert Noise(2).key == Noise(2.0).key == made("noise:std=2").key == "noise(std=2)"
    assert Noise(1).key == Noise(std=1.0).key == "noise"
    assert Noise(blocks=(1, 2), exact=True).key == "noise(exact=True,blocks=[1,2])"
    assert (Plain().key, Plain().parameters) == ("plain", {})


def test_settings_that_differ_have_keys_that_differ() -> None:
    values = [True, 1, "1", 0.1, 0.1 + 1e-17, 0.10000000000000002, [1], "a", "a" * 300, "a" * 301]
    values += ["a/b", "a_b", "a\\b", "\n", None]
    keys = [Noise(label=value).key for value in values]
    same = {Noise(label=0.1).key: 2, Noise(label=1).key: 2}  # 0.1 + 1e-17 is 0.1; "1" looks like 1
    assert len(set(keys)) == len(values) - sum(count - 1 for count in same.values())
    assert all(len(key.encode()) <= 120 and not set(key) & set("/\\\n") for key in keys)


def test_a_file_is_known_by_its_name_and_what_is_in_it(tmp_path: Path) -> None:
    places = [tmp_path / name / "noise.pt" for name in "ab"]
    for place in places:
        place.parent.mkdir()
        place.write_bytes(place.parent.name.encode())
    first, second = (Noise(file=place) for place in places)
    assert first.parameters["file"] == "noise.pt sha256 ca978112ca1b"  # of the letter a
    assert first.key != second.key
    assert Noise(file=str(places[0])).key == first.key
    assert Noise(file=tmp_path / "nothing").parameters["file"] == "nothing"


@pytest.mark.parametrize("value", [torch.nn.Linear(1, 1), np.zeros(2), object()])
def test_what_no_report_could_tell_from_another_is_refused(value: object) -> None:
    noise = Noise(label=value)
    with pytest.raises(PluginError, match="intervention 'noise' was given label of type"):
        _ = noise.parameters
    assert repr(noise).startswith("Noise(std=1.0")


def test_numbers_of_numpy_and_torchs_types_are_told() -> None:
    noise = Noise(np.float32(0.5), label=torch.float16)  # type: ignore[arg-type]  # a number, too
    assert (noise.parameters["std"], noise.parameters["label"]) == (0.5, "float16")


def test_a_copy_has_the_parameters_of_the_first() -> None:
    noise = Noise(2.0)
    for copied in (copy.copy(noise), copy.deepcopy(noise), pickle.loads(pickle.dumps(noise))):
        assert copied.key == "noise(std=2)"


def test_the_signature_of_a_class_is_its_constructors() -> None:
    assert list(inspect.signature(Noise).parameters)[:2] == ["std", "seed"]
    assert list(inspect.signature(Plain).parameters) == []


def test_arguments_that_do_not_fit_end_as_in_any_class() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'stdd'"):
        Noise(stdd=1)  # type: ignore[call-arg]  # misspelt
