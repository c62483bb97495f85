"""What a model is told decides which pictures a command takes: labelled, captioned, or neither."""

from __future__ import annotations

from dataclasses import replace
from inspect import unwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from iarmem_plugin import plugins
from iarmem_plugin.cli import app
from iarmem_plugin.errors import InputError
from iarmem_plugin.interfaces import Adapter, Condition, ForwardInputs, Sampling, Variant
from iarmem_plugin.jobs.scores import load_scores
from iarmem_plugin.models.loading import load
from iarmem_plugin.plugins import registry
from iarmem_plugin.report.report import Report
from iarmem_plugin.testing.tiny import TinyAdapter

TOLD: list[Condition] = []


class Untold(TinyAdapter):
    """A tiny model that is told nothing."""

    name = "untold"
    conditions = frozenset()

    @classmethod
    def variants(cls) -> dict[str, Variant]:
        return {cls.name: TinyAdapter.variants()["tiny"]}

    def teacher_forced(self, tokens: torch.Tensor, condition: Condition) -> ForwardInputs:
        TOLD.append(condition)
        return super().teacher_forced(tokens, Condition.of([0] * len(condition)))

    def complete(
        self, prefix: torch.Tensor, condition: Condition, sampling: Sampling
    ) -> torch.Tensor:
        TOLD.append(condition)
        return super().complete(prefix, Condition.of([0] * len(condition)), sampling)


class Prompted(Untold):
    """A tiny model that is told a caption."""

    name = "prompted"
    conditions = frozenset({"text"})


class Files(Untold):
    """A tiny model of three files."""

    name = "files"
    given: dict[str, Path]

    @classmethod
    def variants(cls) -> dict[str, Variant]:
        names = {"weights": "w.bin", "tokenizer": "t.bin", "text encoder": "e.bin"}
        hosts = dict.fromkeys(names, "somebody/models")
        one = replace(TinyAdapter.variants()["tiny"], files=names, repositories=hosts)
        return {cls.name: one}

    @classmethod
    def load(cls, variant: str, *, files: dict[str, Path], **_: object) -> Adapter:  # type: ignore[override]  # fewer
        cls.given = dict(files)
        return cls.make()


@pytest.fixture(autouse=True)
def provided(monkeypatch: pytest.MonkeyPatch) -> None:
    known, ours = registry._provided, (Untold, Prompted, Files)
    more = tuple(registry.Provided("adapter", one.name, "tests", one) for one in ours)
    monkeypatch.setattr(
        registry, "_provided", lambda kind: known(kind) + more * (kind == "adapter")
    )
    main = app.registered_callback
    assert main is not None
    # as users run it: the gate's type checks mind that typer gives None for `--version`
    monkeypatch.setattr(main, "callback", unwrap(main.callback or print))
    TOLD.clear()


def tree(root: Path, *paths: str) -> Path:
    for seed, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(pixels).save(root / path)
    return root


def localize(model: str, root: Path, *options: str) -> Result:
    words = ["localize", model, "--images", str(root), "--out", f"{root}-scores", "--views", "1"]
    return CliRunner().invoke(app, [*words, *options], env={"COLUMNS": "200"})


def test_a_model_that_is_told_no_class_takes_pictures_in_any_folder(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", "a.png", "deep/er/b.png")
    done = localize("untold", root)
    assert done.exit_code == 0, done.output
    assert [one.label.tolist() for one in TOLD] == [[-1, -1]]
    assert load_scores(Path(f"{root}-scores"))["score"].notnull().all()
    assert Path(f"{root}-scores", "images.txt").read_text() == "a.png\ndeep/er/b.png\n"
    again = localize("untold", Path(f"{root}-scores", "images.txt"), "--image-root", str(root))
    assert again.exit_code == 0, again.output


def test_its_best_predicted_pictures_are_tried_whatever_folder_they_lie_in(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", "a.png", "b/c.png", "d.png")
    store = tmp_path / "kept.zarr"
    done = localize("untold", root, "--store", str(store))
    assert done.exit_code == 0, done.output
    words = f"mitigate untold --scores {root}-scores --images {root} --out {tmp_path / 'report'}"
    options = "--per-class 2 --random-sets 1 --json"
    done = CliRunner().invoke(app, [*words.split(), *options.split()])
    assert done.exit_code == 0, done.output
    report = Report.load(tmp_path / "report")
    assert report.extraction["label"].values.tolist() == [-1, -1]


def test_a_model_that_is_told_captions_is_told_them_or_refuses_early(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", "a.png", "b.png")
    refused = localize("prompted", root)
    assert refused.exit_code == 2
    assert isinstance(refused.exception, InputError | SystemExit)
    assert "told a caption of each picture, and these have none" in refused.output
    for name in "ab":
        (root / f"{name}.txt").write_text(f"a picture of {name}\n")
    done = localize("prompted", root)
    assert done.exit_code == 0, done.output
    assert [one.text for one in TOLD] == [("a picture of a", "a picture of b")]


def test_a_class_conditional_model_refuses_pictures_without_classes(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", "a.png", "b.png")
    refused = localize("var-organism", root)
    assert refused.exit_code == 2
    assert "holds pictures outside any class folder" in refused.output


def test_a_third_file_is_named_by_its_role(tmp_path: Path) -> None:
    files = {role: tmp_path / f"{role[0]}.bin" for role in ("weights", "tokenizer", "encoder")}
    for path in files.values():
        path.write_bytes(b"numbers")
    with pytest.raises(InputError, match="files needs --file 'text encoder=PATH': 'iarmem fetch"):
        load("files", files["weights"], files["tokenizer"])
    with pytest.raises(InputError, match="no file of the role 'vae'; its files are: weights, tok"):
        load("files", files["weights"], files={"vae": files["encoder"]})
    with pytest.raises(InputError, match="the role 'weights' is named twice"):
        load("files", files["weights"], files={"weights": files["weights"]})
    load("files", files["weights"], files["tokenizer"], files={"text encoder": files["encoder"]})
    expected = {one.replace("encoder", "text encoder"): path for one, path in files.items()}
    assert Files.given == expected

    root = tree(tmp_path / "images", "a.png", "b.png")
    options = ["--weights", str(files["weights"]), "--tokenizer", str(files["tokenizer"])]
    done = localize("files", root, *options, "--file", f"text encoder={files['encoder']}")
    assert done.exit_code == 0, done.output
    assert Files.given == expected


def test_what_a_model_is_told_can_be_asked_by_its_name() -> None:
    assert plugins.conditions("var-d16") == plugins.conditions("rar") == frozenset({"label"})
    assert plugins.conditions("prompted") == frozenset({"text"})
