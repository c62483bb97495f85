"""Text of others is shown as text, on one line, whatever its signs."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text

from iarmem_plugin.text import one_line, rich_text, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b[31m\tb\n", r"a\x1b[31m\tb\n"),
        ("photo\u202egnp.exe", r"photo\u202egnp.exe"),
        ("a\u200bb\ufeffc\u2066d", r"a\u200bb\ufeffc\u2066d"),
        ("line\u2028and\u2029and\x85", r"line\u2028and\u2029and\x85"),
        ("undecodable\udcff.png", r"undecodable\udcff.png"),
        ("blank\u3164\u115f", r"blank\u3164\u115f"),
        ("\ue000\U0010ffff", r"\ue000\U0010ffff"),
        ("e\u0301 猫 👩\u200d🚀 می\u200cخواهم", "e\u0301 猫 👩\u200d🚀 می\u200cخواهم"),
        ("[red]$x$<b>", "[red]$x$<b>"),
    ],
)
def test_what_cannot_be_seen_is_shown_by_its_escape(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_of_a_long_text_the_middle_is_left_out() -> None:
    assert shown("beginning" + "x" * 10_000_000 + "end", 9) == "begi…xend"
    assert shown("x" * 200) == "x" * 200
    assert len(shown("\x1b" * 5_000)) == 200


@settings(max_examples=50)
@given(st.text(st.characters(), max_size=300), st.integers(1, 250))
def test_any_text_becomes_one_line_that_can_be_encoded(text: str, limit: int) -> None:
    line = shown(text, limit)
    assert len(line) <= limit
    assert line.encode("utf-8").decode("utf-8") == line
    assert not {unicodedata.category(sign) for sign in line} & {"Cc", "Cs", "Zl", "Zp"}


def test_a_message_is_one_line_of_at_most_400_signs() -> None:
    assert one_line("two\n   lines\r\n") == "two lines"
    assert len(one_line("word " * 1_000)) == 400


def test_an_object_that_cannot_say_what_it_is_is_named() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert one_line(MuteError()) == "MuteError, which raised RuntimeError when it was to be shown"


def test_rich_reads_no_style_in_it() -> None:
    assert rich_text("[red]a[/] :smile:") == Text("[red]a[/] :smile:")
