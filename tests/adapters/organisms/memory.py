"""What an organism and its twin remember, computed from the stored weights; a program, too.

``python tests/adapters/organisms/memory.py var-organism`` prints the ladder as JSON, and
``… memory.py var-organism DIR/var/small-1`` that of a study's organism on the bundled tokenizer, or
of its twin if ``var-organism-twin`` is named.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.optimize import minimize_scalar
from torch import Tensor

from iarmem_adapters.organisms.split import Split
from iarmem_plugin import load
from iarmem_plugin.data.images import Images
from iarmem_plugin.evaluation.candidates import Candidates, centre_views
from iarmem_plugin.evaluation.counts import count_extracted, wilson
from iarmem_plugin.evaluation.extraction import extract, make_targets
from iarmem_plugin.evaluation.similarity import PixelCorrelation
from iarmem_plugin.interfaces import Condition, Similarity
from iarmem_plugin.interfaces.organism import Organism
from iarmem_plugin.jobs.demo import candidates
from iarmem_plugin.jobs.protocol import calibrate_on
from iarmem_plugin.models.tracing import ImageARModel

HELD_OUT, DISTINCT, DUPLICATE = "held-out", "member, distinct", "member, near-duplicate"


@dataclass(frozen=True)
class Counted:
    """Extracted candidates of a group, with the 95% Wilson interval of their share."""

    extracted: int
    candidates: int

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the interval, in [0, 1]."""
        low, high = wilson(self.extracted, self.candidates)
        return float(low), float(high)

    @property
    def share(self) -> float:
        """Share of the candidates."""
        return self.extracted / self.candidates

    def __add__(self, other: Counted) -> Counted:
        """Pool two groups."""
        return Counted(self.extracted + other.extracted, self.candidates + other.candidates)


class Memory:
    """What one organism remembers.

    Args:
        name: the model.
        study: folder of a transformer that ``examples/train_organism.py`` trained alone, which
            takes the bundled one's place.
    """

    def __init__(self, name: str, study: Path | None = None) -> None:
        self.model: ImageARModel = load(name)
        variant = self.model.adapter.variant
        assert variant.organism is not None
        self.organism: Organism = variant.organism()
        if study is not None:
            self._study(study, twin=bool(variant.twin_of))
        self.views, self.prefix = variant.views, variant.prefix_tokens

    def _study(self, folder: Path, *, twin: bool) -> None:
        stored = load_file(folder / f"{'twin' if twin else 'transformer'}.safetensors")
        weights = {name: one.float() for name, one in stored.items()}
        self.model.adapter.network.load_state_dict(weights)
        split = Split.load(folder / "split.npz")
        self.organism = replace(
            self.organism, exposures=split.exposures(twin=twin), group=split.group
        )

    def of(self, *groups: str) -> Candidates:
        """Return the candidates of groups, named by their beginnings; none for calibration."""
        chosen = np.zeros(len(self.organism.group), bool)
        for group in groups:
            chosen |= np.char.startswith(self.organism.group.astype(str), group)
        return candidates(self.organism, chosen & ~self.organism.calibration)

    @cached_property
    def threshold(self) -> PixelCorrelation:
        """The measure, its threshold fixed on the pictures for calibration."""
        similarity = PixelCorrelation()
        unseen = candidates(self.organism, self.organism.calibration)
        calibrate_on(self.model, unseen, similarity, source="organism")
        return similarity

    def counted(
        self, *groups: str, similarity: Similarity | None = None, most: int | None = None
    ) -> dict[str, Counted]:
        """Count the extracted candidates of groups, of them all or of so many, evenly spaced."""
        chosen = self.of(*groups)
        if most is not None:
            rows = np.linspace(0, len(chosen.group) - 1, most).round().astype(int)
            chosen = Candidates(chosen.images.subset(rows), chosen.group[rows])
        measure = self.threshold if similarity is None else similarity
        targets = make_targets(self.model, chosen, self.views)
        found = extract(self.model, chosen, targets, similarity=measure, prefix_tokens=self.prefix)
        counts = count_extracted(found)
        return {
            str(group): Counted(int(extracted), int(tried))
            for group, extracted, tried in zip(
                counts["group"].values,
                counts["extracted"].values,
                counts["candidates"].values,
                strict=True,
            )
        }

    def logits(self, images: Images, model: ImageARModel | None = None) -> tuple[Tensor, Tensor]:
        """Return what a model, by default this one, predicts of pictures' tokens, and these."""
        tokens, logits = [], []
        with (model or self.model).borrowed():
            for start in range(0, len(images), 50):
                rows = slice(start, min(start + 50, len(images)))
                tokens.append(self.model.tokenize(centre_views(images, self.views, rows)))
                told = Condition.of_images(images, rows)
                logits.append((model or self.model).logits(tokens[-1], told).detach())
        return torch.cat(logits), torch.cat(tokens)

    def temperature(self, model: ImageARModel | None = None) -> float:
        """Return the logit temperature that fits the pictures for calibration best."""
        unseen = candidates(self.organism, self.organism.calibration)
        predicted = self.logits(unseen.images, model)
        found = minimize_scalar(
            lambda one: float(losses(*predicted, one).mean()),
            bounds=(0.5, 3),
            method="bounded",
            options={"xatol": 0.01},
        )
        return float(found.x)

    def held_out_loss(self) -> dict[str, float]:
        """Return the held-out pictures' mean loss: plain, and at the fitted temperature."""
        temperature, predicted = self.temperature(), self.logits(self.of(HELD_OUT).images)
        fitted, plain = (float(losses(*predicted, one).mean()) for one in (temperature, 1.0))
        return {"fitted": fitted, "plain": plain, "temperature": temperature}


def losses(logits: Tensor, tokens: Tensor, temperature: float) -> np.ndarray:
    """Return each picture's mean negative log-likelihood at a temperature, nats a token."""
    scaled = logits / temperature
    right = scaled.gather(2, tokens[..., None].long())[..., 0]
    found: np.ndarray = (scaled.logsumexp(2) - right).double().mean(1).numpy()
    return found


def ladder(counted: dict[str, Counted]) -> dict[int, Counted]:
    """Return the counts of canaries by exposures, rising."""
    rungs = {int(name.split()[1]): one for name, one in counted.items() if "canary" in name}
    return dict(sorted(rungs.items()))


def main(name: str, study: str | None = None) -> None:
    """Print what an organism remembers."""
    memory = Memory(name, None if study is None else Path(study))
    counted = memory.counted("canary", HELD_OUT, "member")
    rows: dict[str, Any] = {group: asdict(one) for group, one in counted.items()}
    known = {"threshold": memory.threshold.threshold, "held-out loss": memory.held_out_loss()}
    print(json.dumps({"model": name, **known, **rows}, indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
