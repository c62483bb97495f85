"""Tables: any text is shown as text, and a number is never broken, however narrow it gets."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iarmem_plugin.table import TextTable

NUMBERS = [f"{1000 * scale + 0.5:.1f}" for scale in range(10)]


@pytest.fixture
def table() -> TextTable:
    """Ten columns of numbers, wider than 80 signs."""
    names = [f"scale {scale}" for scale in range(10)]
    return TextTable("sums [/x]", ["block", *names], [["[b]0[/b]", *NUMBERS]], numbers=names)


def test_print_shows_the_table(table: TextTable, capsys: pytest.CaptureFixture[str]) -> None:
    print(table)
    shown = capsys.readouterr().out
    assert "object at" not in shown
    assert "sums [/x]" in shown
    assert "[b]0[/b]" in shown


@pytest.mark.parametrize("columns", [20, 40, 80, 300])
def test_numbers_are_never_broken(
    table: TextTable, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", f"{columns}")
    lines = str(table).splitlines()
    assert max(map(len, lines)) <= columns
    assert [one for one in NUMBERS if sum(one in line.split() for line in lines) != 1] == []


def test_every_part_names_its_row(table: TextTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    shown = str(table)
    assert shown.count("[b]0[/b]") == shown.count("block") == 3
    assert shown.count("sums") == 1


def test_texts_are_folded_and_nothing_of_them_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    table = TextTable("t", ["name", "n"], [["x" * 100, 7]], numbers=["n"], notes=["[1] a note"])
    assert str(table).count("x") == 100
    assert str(table).endswith("[1] a note")


def test_a_cell_of_several_texts_has_several_lines() -> None:
    table = TextTable("t", ["file"], [[("a\nb", "c")]], tight=True)
    assert str(table).split()[-2:] == [r"a\nb", "c"]


@settings(max_examples=10)
@given(st.text(max_size=60), st.lists(st.text(max_size=60), min_size=3, max_size=3))
def test_any_text_is_printed(title: str, texts: list[str]) -> None:
    table = TextTable(title, texts, [texts], numbers=texts[2:], notes=texts)
    assert "\x1b" not in str(table)
