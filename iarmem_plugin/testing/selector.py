"""What every selector must do."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from iarmem_plugin.interfaces import Selector

BLOCKS, SCALES, NEURONS = 3, 2, 10


class SelectorTests:
    """Subclass it and give the fixture `selector`: an instance."""

    @pytest.fixture
    def selector(self) -> Selector:
        """Return the instance under test."""
        raise NotImplementedError("give the fixture `selector`")

    @pytest.fixture
    def scores(self) -> xr.Dataset:
        """Return scores in [0, 1] as `localize` returns them, all distinct and valid."""
        dims = ("block", "scale", "neuron")
        size = BLOCKS * SCALES * NEURONS
        random = np.random.default_rng(0)
        values = [random.permutation(size).reshape(BLOCKS, SCALES, NEURONS) / size for _ in "ab"]
        return xr.Dataset(
            {"score": (dims, values[0]), "mean_activation": (dims, values[1])},
            coords={
                "block": np.arange(BLOCKS),
                "scale": np.arange(SCALES),
                "scale_name": ("scale", np.array([str(k) for k in range(SCALES)], object)),
                "neuron": np.arange(NEURONS, dtype="int32"),
                "valid": (dims, np.ones((BLOCKS, SCALES, NEURONS), bool)),
            },
            attrs={"metric": "unitmem"},
        )

    def test_it_has_a_name(self, selector: Selector) -> None:
        """Users choose it by name."""
        assert isinstance(selector.name, str)
        assert selector.name

    def test_its_parameters_fit_into_the_report(self, selector: Selector) -> None:
        """Text by name."""
        shown = dict(selector.parameters)
        assert json.loads(json.dumps(shown)) == shown

    @pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 1.0])
    def test_it_selects_the_fraction(
        self, selector: Selector, scores: xr.Dataset, fraction: float
    ) -> None:
        """Rounded up, over the model or in each block: less than one a block too many."""
        chosen = selector.select(scores, fraction=fraction, seed=0)
        assert dict(chosen.sizes) == {"block": BLOCKS, "neuron": NEURONS}
        assert chosen.dtype == bool
        exact = fraction * BLOCKS * NEURONS
        assert exact - 1e-9 <= int(chosen.sum()) < exact + BLOCKS

    @pytest.mark.parametrize("fraction", [0.5, 1.0])
    def test_it_never_selects_a_neuron_that_is_not_valid(
        self, selector: Selector, scores: xr.Dataset, fraction: float
    ) -> None:
        """A neuron with no valid score is not selected, however much is asked for."""
        scores["valid"].loc[{"block": 1, "neuron": [0, 3]}] = False
        chosen = selector.select(scores, fraction=fraction, seed=0)
        assert not chosen.sel(block=1, neuron=[0, 3]).any()

    def test_the_same_seed_selects_the_same(self, selector: Selector, scores: xr.Dataset) -> None:
        """A result can be computed again from its report."""
        first, second = (selector.select(scores, fraction=0.3, seed=7) for _ in range(2))
        xr.testing.assert_identical(first, second)

    def test_the_scores_are_left_as_they_were(self, selector: Selector, scores: xr.Dataset) -> None:
        """Another selector may read the same scores."""
        before = scores.copy(deep=True)
        selector.select(scores, fraction=0.3, seed=0)
        xr.testing.assert_identical(scores, before)
