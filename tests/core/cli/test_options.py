"""Bands of tokens as users write them."""

from __future__ import annotations

import pytest

from iarmem_plugin.cli.options import read_bands
from iarmem_plugin.errors import InputError


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("first row=1-4", (1, 2, 3, 4)),
        ("last token = 256", (256,)),
        ("ends=1, 3-4,9", (1, 3, 4, 9)),
        ("a=b=7", (7,)),
    ],
)
def test_bands_are_read_from_text(text: str, tokens: tuple[int, ...]) -> None:
    assert list(read_bands([text]).values()) == [tokens]


def test_a_name_may_hold_an_equals_sign_and_comes_without_spaces() -> None:
    assert list(read_bands(["a=b=7", " last token =1"])) == ["a=b", "last token"]


@pytest.mark.parametrize("text", ["x=", "x=a", "x=3-1", "x=1-2-3", "x=-1", "x=1e9", "x=9999999"])
def test_text_that_is_not_a_band_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a span of tokens"):
        read_bands([text])


@pytest.mark.parametrize("texts", [["=1"], ["5"], ["a=1", "a=2"]])
def test_bands_need_names_of_their_own(texts: list[str]) -> None:
    with pytest.raises(InputError, match="each name once"):
        read_bands(texts)
