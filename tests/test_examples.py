"""The examples run as they stand, in a folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(code: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_localizing_then_mitigating_writes_scores_and_a_report(tmp_path: Path) -> None:
    shown = run("import localize; localize.main(images=24, views=2)", tmp_path)
    assert "neurons among the top 10 %" in shown
    assert (tmp_path / "iarmem-localize" / "scores.nc").is_file()
    shown = run("import mitigate; mitigate.main()", tmp_path)
    assert "highest" in shown
    assert (tmp_path / "iarmem-mitigate" / "report.html").is_file()


@pytest.mark.slow
def test_baselines_are_compared_on_an_organism(tmp_path: Path) -> None:
    edits = "{'tuned': 'fine-tune:steps=1,batch_size=4', 'noise': 'logit-noise:std=1'}"
    shown = run(f"import baselines; baselines.main(edits={edits}, unseen=25)", tmp_path)
    assert "tuned" in shown
    assert (tmp_path / "iarmem-baselines" / "report.html").is_file()


@pytest.mark.slow
def test_membership_is_compared_on_an_organism_and_its_twin(tmp_path: Path) -> None:
    sizes = "each=40, generated=10, captured=24"
    shown = run(f"import membership; membership.main({sizes})", tmp_path)
    assert "Membership, told from 40 held-out pictures" in shown
    assert "Membership, told from 10 generated pictures" in shown
    assert (tmp_path / "iarmem-membership" / "tables" / "membership_sets.csv").is_file()


@pytest.mark.slow
def test_scores_of_parts_of_the_members_are_compared(tmp_path: Path) -> None:
    call = "main('rar-organism', views=1, draws=1)"
    shown = run(f"from subsets_of_members import main; {call}", tmp_path)
    assert "disjoint | 50% – other 50% | " in shown
    assert (tmp_path / "iarmem-subsets" / "other 50%" / "scores.nc").is_file()


@pytest.mark.slow
def test_workers_of_a_slurm_array_make_one_report(tmp_path: Path) -> None:
    plan = 'model = { name = "var-organism" }\npictures.organism = true\n'
    grid = '[[grid]]\nselectors = ["weight-norm"]\nrandom-sets = 1\n'
    (tmp_path / "plan.toml").write_text(f"{plan}attack.batch-size = 180\n{grid}")
    call = "main(Path('plan.toml'), Path('out'), workers=2, cluster='local')"
    shown = run(f"from pathlib import Path; from compare_on_slurm import main; {call}", tmp_path)
    assert "weight-norm" in shown
    assert (tmp_path / "out" / "report.html").is_file()
    assert len(list((tmp_path / "out-slurm").glob("*_0_result.pkl"))) == 2
