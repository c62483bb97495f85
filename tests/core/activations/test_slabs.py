"""Slabs cover all images, each once, whoever captures them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iarmem_plugin.activations.slabs import Slabs
from iarmem_plugin.errors import InputError


@given(st.integers(0, 40), st.integers(1, 45))
def test_every_image_is_in_one_slab(images: int, size: int) -> None:
    slabs = Slabs(images, size)
    spans = [slabs.positions(slab) for slab in slabs]
    assert [position for span in spans for position in span] == list(range(images))
    assert all(len(span) == size for span in spans[:-1])
    assert len(spans) == len(slabs)
    for slab, span in zip(slabs, spans, strict=True):
        assert {slabs.of(position) for position in span} == {slab}
        assert (span.start, span.stop) == slabs.bounds(slab)


@pytest.mark.parametrize("slab", [-1, 3])
def test_a_slab_that_is_not_there_is_refused(slab: int) -> None:
    with pytest.raises(InputError, match=f"slab {slab} was given; there are slabs 0 to 2"):
        Slabs(21, 8).bounds(slab)


@pytest.mark.parametrize("pending", [None, [0, 3, 4, 7, 9]])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_slabs_are_shared_among_processes_one_each(world: int, pending: list[int] | None) -> None:
    slabs = Slabs(80, 8)
    shares = [slabs.share(rank, world, among=pending) for rank in range(world)]
    assert sorted(slab for share in shares for slab in share) == (pending or list(slabs))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_rank_outside_the_world_is_refused() -> None:
    with pytest.raises(InputError, match="rank 2 of 2 was given"):
        Slabs(16, 8).share(2, 2)
