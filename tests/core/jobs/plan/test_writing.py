"""A plan written as TOML is read as an equal plan, and says what each key is."""

from __future__ import annotations

import tomllib
from pathlib import Path

from iarmem_plugin import Plan, read_plan

DOCUMENT = {
    "seed": 3,
    "model": {"name": "var-organism", "files": {'text "encoder"\\': "t5.bin"}, "compile": True},
    "twin": {"name": "var-organism-twin"},
    "pictures": {"candidates": {"canary 40": "a", "member, distinct": "b"}, "held-out": "c"},
    "scores": {"unitmem": "scores", "mean activity": "others"},
    "attack": {"decoding": {"temperature": 0.9}, "threshold": 0.75},
    "quality": {"temperature": "tuned", "images": "fid:extractor=t5.bin"},
    "grid": [{"selectors": ["highest", "gradient-weight"]}, {"interventions": ["zero"]}],
    "arm": [{"name": "noise", "edit": "logit-noise:std=1", "seed": 4}],
    "drop": [{"before": "extraction", "outcome": "held-out change", "above": 0.5}],
}


def test_a_plan_comes_back_from_its_text(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "scores", "others", "t5.bin"):
        (tmp_path / name).mkdir()
    paths = Plan.from_document(DOCUMENT).to_document()
    text = Plan.from_document(paths).to_toml().replace(str(Path.cwd()), str(tmp_path))
    (tmp_path / "plan.toml").write_text(text)
    found = read_plan(tmp_path / "plan.toml").to_document()
    assert tomllib.loads(text)["attack"]["decoding"]["temperature"] == 0.9
    assert str(found).replace(str(tmp_path), str(Path.cwd())) == str(paths)


def test_each_key_says_what_it_is() -> None:
    lines = Plan.from_document(DOCUMENT).to_toml().splitlines()
    said = next(line for line in lines if line.startswith("per-class"))
    assert said == "per-class = 5 # Images of each class to try, the best predicted first"
