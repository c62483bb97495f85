from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROUNDS = 5
QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Ratio:
    """CPU time of the subject over that of the fastest reference, round by round: quartiles."""

    subject_seconds: float
    reference: str
    reference_seconds: float
    median: float
    low: float
    high: float
    others: Mapping[str, float]

    def __str__(self) -> str:
        others = "".join(f"; {ratio:.3f} of {name}" for name, ratio in self.others.items())
        return (
            f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}] "
            f"({self.subject_seconds:.3f} s against {self.reference_seconds:.3f} s, "
            f"{self.reference}){others}"
        )


def interleave(
    subject: Callable[[], object], references: Mapping[str, Callable[[], object]], rounds: int
) -> Ratio:
    """Time all in turn, after one round that is not counted."""
    tasks = {"": subject, **references}
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds + 1):
        for name, task in tasks.items():
            begin = time.process_time()
            task()
            seconds[name].append(time.process_time() - begin)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    best = min(references, key=medians.__getitem__)
    ratios = {
        name: np.quantile(np.divide(seconds[""][1:], np.maximum(times[1:], 1e-9)), QUARTILES)
        for name, times in seconds.items()
        if name
    }
    others = {name: float(quartiles[1]) for name, quartiles in ratios.items() if name != best}
    low, middle, high = map(float, ratios[best])
    return Ratio(medians[""], best, medians[best], middle, low, high, others)


@pytest.fixture(scope="session")
def bound() -> ModuleType:
    """The module that lists the calls of which a bound consists."""
    path = Path(__file__).with_name("bound.py")
    spec = importlib.util.spec_from_file_location("bound", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot read {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def report_ratio(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Compare in interleaved rounds and report the ratio; one round unless benchmarks are on."""

    def report(
        name: str, subject: Callable[[], object], references: Mapping[str, Callable[[], object]]
    ) -> None:
        rounds = 1 if benchmark.disabled else ROUNDS
        ratio = benchmark.pedantic(interleave, args=(subject, references, rounds), rounds=1)
        benchmark.extra_info["ratio"] = str(ratio)
        if not benchmark.disabled:
            with capsys.disabled():
                print(f"\n{name}: {ratio}")

    return report
