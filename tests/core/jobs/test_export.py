"""A mitigated checkpoint as a file: what is in it, what its card says, and what is refused."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file

from iarmem_plugin.activations.settings import CaptureOptions
from iarmem_plugin.data.images import Images
from iarmem_plugin.errors import IarmemError, InputError, WeightsError
from iarmem_plugin.evaluation.candidates import Candidates
from iarmem_plugin.evaluation.similarity import TokenAgreement
from iarmem_plugin.interfaces import Adapter, ImageScorer
from iarmem_plugin.jobs.arms import Arm, result_of, select_neurons
from iarmem_plugin.jobs.attack import ExtractionOptions
from iarmem_plugin.jobs.contrast import contrast, cross_fit
from iarmem_plugin.jobs.edits.noise import LogitNoise
from iarmem_plugin.jobs.export.job import export
from iarmem_plugin.jobs.localize import localize
from iarmem_plugin.jobs.mitigate import mitigate
from iarmem_plugin.models.intervening import intervene
from iarmem_plugin.models.provenance import weights_sha256
from iarmem_plugin.models.tracing import ImageARModel
from iarmem_plugin.neurons.interventions import MeanAblate, ScaleWeights, Zero
from iarmem_plugin.neurons.listed import Listed, read_neurons
from iarmem_plugin.neurons.selectors import Highest, Random
from iarmem_plugin.plugins import registry
from iarmem_plugin.report.report import Report
from iarmem_plugin.testing.tiny import CLASSES, PIXELS, TinyAdapter

OPTIONS = ExtractionOptions(prefix_tokens=1)
SIMILARITY = 0.5


class FirstOf(ImageScorer):
    """Other neurons for other images."""

    name = "first-of"

    def score(self, model: ImageARModel, candidates: Images, reference: Images) -> np.ndarray:
        shape = (model.layout.num_blocks, model.layout.neurons_per_block)
        return np.random.default_rng(candidates.ids.tolist()).random(shape)


@pytest.fixture(autouse=True)
def tiny_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an adapter that loads its one model by name."""
    known = registry._provided
    tiny = registry.Provided("adapter", "tiny", "tests", TinyAdapter)
    monkeypatch.setattr(
        registry, "_provided", lambda kind: known(kind) + (tiny,) * (kind == "adapter")
    )


@pytest.fixture(scope="module")
def candidates() -> Candidates:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (7, PIXELS, PIXELS, 3), np.uint8)
    pictures = Images.from_arrays(pixels, np.arange(7, dtype=np.int32) % CLASSES)
    return Candidates(pictures, np.array(["canary 40"] * 4 + ["held-out"] * 3))


@pytest.fixture(scope="module")
def scored(candidates: Candidates) -> xr.Dataset:
    model = ImageARModel(TinyAdapter.make())
    return localize(model, candidates.images, options=CaptureOptions(views=2))


@pytest.fixture(scope="module")
def report(scored: xr.Dataset, candidates: Candidates) -> Report:
    model = ImageARModel(TinyAdapter.make())
    unseen = candidates.images.subset(range(4, 7))
    crossed = cross_fit(
        candidates, lambda one: contrast(model, one, unseen, scorer=FirstOf()), seed=3
    )
    arms = [
        Arm("highest | <b>", Highest(), ScaleWeights(0.5), 0.1),
        Arm("random 1", Random(), ScaleWeights(0.5), 0.1, seed=1, role="control"),
        Arm("zeroed", Highest(), Zero(), 0.2),
        Arm("ablated", Highest(), MeanAblate(), 0.1),
        Arm("crossed", Highest(), ScaleWeights(0.3), 0.1, scores=crossed),
    ]
    measure = TokenAgreement(SIMILARITY)
    return mitigate(model, scored, candidates, arms, similarity=measure, options=OPTIONS)


@pytest.fixture
def weights(adapter: Adapter, tmp_path: Path) -> Path:
    torch.save(adapter.network.state_dict(), tmp_path / "tiny.pth")
    return tmp_path / "tiny.pth"


def edited_in_place(model: ImageARModel, neurons: xr.DataArray, how: Any) -> dict[str, Any]:
    with intervene(model, neurons, how, backend="weights") as edited:
        network = edited.adapter.network
        return {key: one.clone() for key, one in network.state_dict().items()}


def neurons_of(report: Report, arm: str, half: int = 0) -> xr.DataArray:
    assert report.neurons is not None
    found = report.neurons.sel(arm=arm)
    return found.isel(half=half) if "half" in found.dims else found


def refusal(*given: Any, kind: type[IarmemError] = InputError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        export(*given, **options)
    return " ".join(str(caught.value).split())


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_the_file_holds_what_the_arm_computed_with_and_all_else_as_it_was(
    model: ImageARModel, report: Report, weights: Path, ending: str
) -> None:
    out = weights.with_name(f"out.{ending}")
    assert export(report, out, arm="highest | <b>", weights=weights) == out
    read = load_file if ending == "safetensors" else torch.load
    found, original = read(out), torch.load(weights, weights_only=True)
    neurons = neurons_of(report, "highest | <b>")
    expected = edited_in_place(model, neurons, ScaleWeights(0.5))
    assert list(found) == list(original)
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []
    rows = {key: (found[key] != original[key]) for key in found}
    assert {key for key, one in rows.items() if one.any()} == {
        f"blocks.{block}.ffn.fc1.weight" for block in range(3) if neurons[block].any()
    }
    for block in range(3):
        changed = rows[f"blocks.{block}.ffn.fc1.weight"].any(1)
        np.testing.assert_array_equal(changed.numpy(), neurons[block])
    model.adapter.network.load_state_dict(found, strict=True)


def test_the_original_file_and_the_borrowed_report_stay_as_they_were(
    report: Report, weights: Path, tmp_path: Path
) -> None:
    before = weights.read_bytes()
    export(report, tmp_path / "out.pth", arm="zeroed", weights=weights)
    assert weights.read_bytes() == before
    names = ["out.md", "out.neurons.csv", "out.neurons.nc", "out.pth", "tiny.pth"]
    assert sorted(one.name for one in tmp_path.iterdir()) == names


def test_a_folder_and_a_report_export_alike_and_again_the_same_bytes(
    report: Report, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iarmem_plugin.report.page.figures", lambda _: {})  # which take a while
    monkeypatch.setattr("iarmem_plugin.report.page.render", lambda *_: "")
    report.save(tmp_path / "report")
    for place, source in (("a", report), ("b", tmp_path / "report"), ("c", tmp_path / "report")):
        (tmp_path / place).mkdir()
        export(source, tmp_path / place / "out.pth", arm="zeroed", weights=weights)
    for name in ("out.pth", "out.md", "out.neurons.csv"):
        first, *others = ((tmp_path / place / name).read_bytes() for place in "abc")
        assert others == [first, first], name


def test_the_list_is_taken_back_and_gives_the_same_arm(
    model: ImageARModel,
    scored: xr.Dataset,
    candidates: Candidates,
    report: Report,
    weights: Path,
    tmp_path: Path,
) -> None:
    export(report, tmp_path / "out.pth", arm="zeroed", weights=weights)
    for ending in ("csv", "nc"):
        listed = Listed(tmp_path / f"out.neurons.{ending}")
        arm = Arm("again", listed, Zero(), 0.2)
        again = mitigate(
            *(model, scored, candidates, [arm]),
            similarity=TokenAgreement(SIMILARITY),
            options=OPTIONS,
        )
        np.testing.assert_array_equal(neurons_of(again, "again"), neurons_of(report, "zeroed"))
        np.testing.assert_array_equal(
            again.extraction["tokens"].sel(arm="again"),
            report.extraction["tokens"].sel(arm="zeroed"),
        )


def test_a_changed_list_is_another_arm_to_whoever_kept_the_first(
    scored: xr.Dataset, model: ImageARModel, tmp_path: Path
) -> None:
    place, said = tmp_path / "list.csv", []
    for neuron in (0, 1):
        place.write_text(f"block,neuron\n1,{neuron}\n")
        arm = Arm("listed", Listed(place), Zero(), 0.002)
        assert int(select_neurons(arm, scored, model.layout).sum()) == 1
        said.append(result_of(arm, (), "weights").selector)
    assert said[0] != said[1]


def test_a_list_and_an_intervention_export_without_a_report(
    model: ImageARModel, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text("block,neuron\n1,5\n")
    out = export(
        "tiny",
        tmp_path / "out.pth",
        neurons=tmp_path / "list.csv",
        intervention="scale-outgoing:factor=0.25",
        weights=weights,
    )
    found, original = torch.load(out, weights_only=True), torch.load(weights, weights_only=True)
    original["blocks.1.ffn.fc2.weight"][:, 5] *= 0.25
    assert all(torch.equal(found[key], original[key]) for key in original)
    card = (tmp_path / "out.md").read_text()
    assert "scale-outgoing(factor=0.25)" in card
    assert "Not measured: no report was given" in card
    assert "with `factor=4.0`" in card
    assert "gives every number of the original back to the last bit" in card


def test_the_nesting_the_order_and_what_else_a_file_holds_stay(
    adapter: Adapter, tmp_path: Path
) -> None:
    state = OrderedDict(reversed(adapter.network.state_dict().items()))
    torch.save(state, tmp_path / "tiny.pth")
    (tmp_path / "list.csv").write_text("block,neuron\n0,0\n")
    how: dict[str, Any] = {"neurons": tmp_path / "list.csv", "intervention": "zero"}
    export("tiny", tmp_path / "out.pth", weights=tmp_path / "tiny.pth", **how)
    found = torch.load(tmp_path / "out.pth", weights_only=True)
    assert type(found) is OrderedDict
    assert list(found) == list(state)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_an_edit_is_made_in_the_files_own_dtype(
    adapter: Adapter, tmp_path: Path, kind: torch.dtype
) -> None:
    torch.save(adapter.network.to(kind).state_dict(), tmp_path / "half.pth")
    (tmp_path / "list.csv").write_text("block,neuron\n2,127\n")
    for ending in ("pth", "safetensors"):
        export(
            "tiny",
            tmp_path / f"out.{ending}",
            neurons=tmp_path / "list.csv",
            intervention="scale-weights:factor=0.3",
            weights=tmp_path / "half.pth",
            overwrite=True,
        )
    expected = torch.load(tmp_path / "half.pth", weights_only=True)
    expected["blocks.2.ffn.fc1.weight"][127] *= 0.3
    for found in (
        torch.load(tmp_path / "out.pth", weights_only=True),
        load_file(tmp_path / "out.safetensors"),
    ):
        assert {one.dtype for one in found.values()} == {kind}
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert "numbers back to the last bit (these were rounded" in (tmp_path / "out.md").read_text()


def test_the_card_says_what_why_with_which_effect_and_how_to_undo_it(
    model: ImageARModel, report: Report, weights: Path, tmp_path: Path
) -> None:
    out = export(report, tmp_path / "out.pth", arm="highest | <b>", weights=weights)
    card = (tmp_path / "out.md").read_text()
    before = report.provenance["weights_sha256"]
    model.adapter.network.load_state_dict(torch.load(out, weights_only=True))
    count = report.extraction["extracted"].sel(arm="highest | <b>")[:4].sum().item()
    for part in (
        f"sha256 {hashlib.sha256(weights.read_bytes()).hexdigest()}",
        f"sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}",
        f"weights\\_sha256 {before}",
        f"weights\\_sha256 {weights_sha256(model)}",
        "39 of 384, listed in out.neurons.csv and out.neurons.nc",
        "scale-weights(factor=0.5)",
        "| metric | unitmem |",
        r"Arm “highest \| \<b\>”",
        "| random 1 |",
        f"{count}/4",
        "Fewer extracted is not forgotten",
        "Hidden memory can come back",
        "hold for these candidates, this attack",
        "was not measured",
        "with `factor=2.0`",
    ):
        assert part in card, part
    assert "| zeroed |" not in card
    assert "<b>" not in card.replace(r"\<b\>", "")


def test_the_list_has_the_scores_that_its_neurons_were_ranked_by(
    report: Report, weights: Path, tmp_path: Path
) -> None:
    for arm, known in (("zeroed", True), ("random 1", False)):
        export(report, tmp_path / "out.pth", arm=arm, weights=weights, overwrite=True)
        header, *lines = (tmp_path / "out.neurons.csv").read_text().splitlines()
        assert header == ("block,neuron,score" if known else "block,neuron")
        if known:
            block, neuron, score = lines[0].split(",")
            found = report.scores["score"].sel(block=int(block), neuron=int(neuron))
            assert float(score) == pytest.approx(found.mean().item())
        with xr.open_dataset(tmp_path / "out.neurons.nc", engine="h5netcdf") as found:
            assert dict(found["selected"].sizes) == {"block": 3, "neuron": 128}
            assert found["selected"].dtype == bool
            assert '"weights_sha256"' in found.attrs["provenance"]


@pytest.mark.parametrize("half", [0, 1])
def test_half_of_a_cross_fitted_arm_is_shown_on_the_candidates_it_was_tested_on(
    model: ImageARModel, report: Report, weights: Path, tmp_path: Path, half: int
) -> None:
    out = export(report, tmp_path / "out.pth", arm="crossed", half=half, weights=weights)
    own, other = (neurons_of(report, "crossed", half=one) for one in (half, 1 - half))
    assert not own.equals(other)
    listed = read_neurons(tmp_path / "out.neurons.csv", (3, 128))
    np.testing.assert_array_equal(listed, own)
    expected = edited_in_place(model, own, ScaleWeights(0.3))
    found = torch.load(out, weights_only=True)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    card = (tmp_path / "out.md").read_text()
    tried = report.extraction["half"].sel(arm="crossed") == half
    assert f"Each of {int(tried.sum())} candidates" in card
    assert f"chosen without half {half}" in card
    assert (tmp_path / "out.neurons.csv").read_text().startswith("block,neuron\n")


def test_what_is_no_edit_of_weights_of_chosen_neurons_is_refused(
    model: ImageARModel,
    scored: xr.Dataset,
    candidates: Candidates,
    report: Report,
    weights: Path,
    tmp_path: Path,
) -> None:
    how: dict[str, Any] = {"weights": weights}
    out = tmp_path / "out.pth"
    assert "edits nothing" in refusal(report, out, arm="original", **how)
    assert "changes activations by 'mean-ablate'" in refusal(report, out, arm="ablated", **how)
    assert "has two sets of neurons" in refusal(report, out, arm="crossed", **how)
    assert "--half 0 or --half 1" in refusal(report, out, arm="crossed", half=2, **how)
    assert "not cross-fitted" in refusal(report, out, arm="zeroed", half=0, **how)
    assert "no arm 'other'; its arms: 'original'" in refusal(report, out, arm="other", **how)
    assert "Give --arm, one of 'highest | <b>'" in refusal(report, out, **how)
    assert "leave out --neurons" in refusal(report, out, arm="zeroed", neurons="x.csv", **how)
    noisy = mitigate(
        *(model, scored, candidates, [Arm("noisy", edit=LogitNoise(std=1.0))]),
        similarity=TokenAgreement(SIMILARITY),
        options=OPTIONS,
    )
    assert "changes the whole model by 'logit-noise'" in refusal(noisy, out, **how)
    unknown = replace(report, neurons=None)
    assert "does not hold which neurons" in refusal(unknown, out, arm="zeroed", **how)
    odd = tuple(
        replace(one, intervention={"name": "zero", "strength": 3}) if one.name == "zeroed" else one
        for one in report.arms
    )
    assert "cannot be made again" in refusal(replace(report, arms=odd), out, arm="zeroed", **how)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["tiny.pth"]


def test_a_model_needs_neurons_and_an_intervention_of_weights(
    weights: Path, tmp_path: Path
) -> None:
    out, listed = tmp_path / "out.pth", tmp_path / "list.csv"
    listed.write_text("block,neuron\n1,5\n")
    how: dict[str, Any] = {"weights": weights, "neurons": listed, "intervention": "zero"}
    assert "give its neurons and an intervention" in refusal("tiny", out, weights=weights)
    assert "are of a report, and tiny is a model" in refusal("tiny", out, arm="x", **how)
    assert "this export changes activations" in refusal(
        "tiny", out, **{**how, "intervention": "clamp"}
    )
    assert "needs --weights" in refusal("tiny", out, **{**how, "weights": None})
    gone = tmp_path / "gone.pth"
    assert "no such file" in refusal("tiny", out, **{**how, "weights": gone})
    none = xr.DataArray(np.zeros((3, 128), bool), dims=("block", "neuron"))
    assert "no neurons are selected" in refusal("tiny", out, **{**how, "neurons": none})
    other = xr.DataArray(np.ones((3, 12), bool), dims=("block", "neuron"))
    assert "the model has {'block': 3" in refusal("tiny", out, **{**how, "neurons": other})
    missing = tmp_path / "missing"
    assert "neither a report's folder nor a model's" in refusal(missing, out, **how)
    assert "holds no report.json" in refusal(tmp_path, out, **how)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["list.csv", "tiny.pth"]


def test_weights_that_a_report_was_not_made_with_are_refused(
    adapter: Adapter, report: Report, weights: Path, tmp_path: Path
) -> None:
    state = adapter.network.state_dict()
    state["head.bias"] = state["head.bias"].nextafter(torch.tensor(9.0))
    torch.save(state, tmp_path / "other.pth")
    said = refusal(report, tmp_path / "out.pth", arm="zeroed", weights=tmp_path / "other.pth")
    assert "other weights than the report was made with" in said
    torch.save(dict(torch.load(weights, weights_only=True)), tmp_path / "anew.pth")
    export(report, tmp_path / "out.pth", arm="zeroed", weights=tmp_path / "anew.pth")


def test_nothing_that_is_there_is_replaced_unasked(
    report: Report, weights: Path, tmp_path: Path
) -> None:
    how: dict[str, Any] = {"arm": "zeroed", "weights": weights}
    for name in ("out.md", "out.neurons.csv", "out.pth"):
        (tmp_path / name).write_text("mine")
        said = refusal(report, tmp_path / "out.pth", **how)
        assert f"{name} is there, and is not overwritten" in said
        assert (tmp_path / name).read_text() == "mine"
        export(report, tmp_path / "out.pth", **how, overwrite=True)
        for one in tmp_path.glob("out.*"):
            one.unlink()
    assert "is the original" in refusal(report, weights, **how, overwrite=True)
    assert "does not say which format" in refusal(report, tmp_path / "out.bin", **how)
    (tmp_path / "folder.pth").mkdir()
    assert "is a folder" in refusal(report, tmp_path / "folder.pth", **how)


def test_weights_that_share_their_memory_are_not_changed_beside_the_neurons(
    adapter: Adapter, tmp_path: Path
) -> None:
    state = adapter.network.state_dict()
    state["blocks.1.ffn.fc1.weight"] = state["blocks.0.ffn.fc1.weight"]
    torch.save(state, tmp_path / "tied.pth")
    (tmp_path / "list.csv").write_text("block,neuron\n0,0\n")
    said = refusal(
        "tiny",
        tmp_path / "out.pth",
        neurons=tmp_path / "list.csv",
        intervention="zero",
        weights=tmp_path / "tied.pth",
        kind=WeightsError,
    )
    assert "blocks.1.ffn.fc1.weight of" in said
    assert not (tmp_path / "out.pth").exists()


def test_an_adapter_that_does_not_say_how_weights_lie_in_a_file_exports_nothing(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: Adapter
) -> None:
    monkeypatch.delattr(type(adapter), "checkpoint")
    (tmp_path / "list.csv").write_text("block,neuron\n0,0\n")
    said = refusal(
        "tiny",
        tmp_path / "out.pth",
        neurons=tmp_path / "list.csv",
        intervention="zero",
        weights=weights,
    )
    assert "tiny cannot be exported: the adapter 'tiny' does not say how" in said
