"""Tables of text: foreign text is shown as it is, numbers are never broken, `print` shows them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from io import StringIO

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.jupyter import JupyterMixin
from rich.table import Table
from rich.text import Text

from iarmem_plugin.text import shown

LONGEST_CELL = 1000
_NARROW = 16  # to which texts, and the heads of numbers, may be folded

Cell = str | int | Sequence[str]  # several texts are several lines


class TextTable(JupyterMixin):
    """A table of texts, whoever wrote them, to print.

    On a terminal that it is too wide for, texts are folded; if that is not enough, it is shown in
    parts, each with the first column.

    Args:
        title: shown above it.
        columns: what stands above each column.
        rows: the cells of each row.
        numbers: columns whose cells are never folded, and stand at the right.
        whole: other columns whose cells are never folded.
        notes: lines below the table.
        tight: draw nothing between the columns.
    """

    def __init__(
        self,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Cell]],
        *,
        numbers: Collection[str] = (),
        whole: Collection[str] = (),
        notes: Iterable[str] = (),
        tight: bool = False,
    ) -> None:
        self._title, self._tight = shown(title), tight
        self._notes = "\n".join(shown(note, LONGEST_CELL) for note in notes)
        self._numbers = [column in numbers for column in columns]
        self._whole = [column in numbers or column in whole for column in columns]
        lines = [[_lines(cell) for cell in row] for row in rows]
        self._rows = [[_lines(column) for column in columns], *lines]

    def __str__(self) -> str:
        """Return the table as lines of text, as wide as the terminal."""
        console = Console(file=StringIO(), color_system=None, force_jupyter=False)
        with console.capture() as shown:
            console.print(self)
        return shown.get().rstrip("\n")

    __repr__ = __str__

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        """Show it in as many parts as the width asks for."""
        parts = list(self._parts(options.max_width))
        for part in parts:
            table = self._part(part, options.max_width)
            if part is parts[0]:
                table.title = Text(self._title)
                table.min_width = cell_len(self._title)
            yield table
        if self._notes:
            yield Text(self._notes, style="italic")

    def _part(self, part: Sequence[int], width: int) -> Table:
        kind, padding = (box.SIMPLE_HEAD, (0, 1, 0, 0)) if self._tight else (box.HEAVY_HEAD, (0, 1))
        table = Table(box=kind, padding=padding, title_justify="left")
        head, *rows = self._rows
        for place, room in zip(part, self._widths(part, width), strict=True):
            table.add_column(
                _cell(head[place]),
                width=room,
                justify="right" if self._numbers[place] else "left",
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(_cell(row[place]) for place in part))
        return table

    def _parts(self, width: int) -> Iterator[list[int]]:
        """Take as many columns as fit beside the first, and so on."""
        part = [0]
        for place in range(1, len(self._numbers)):
            if len(part) > 1 and self._taken([*part, place]) > width:
                yield part
                part = [0]
            part.append(place)
        yield part

    def _taken(self, part: Sequence[int]) -> int:
        return sum(map(self._least, part)) + self._between(part)

    def _between(self, part: Sequence[int]) -> int:
        return (2 if self._tight else 3) * len(part) + 1

    def _least(self, place: int) -> int:
        if not self._whole[place]:
            return min(self._most(place), _NARROW)
        head, *cells = (_width(row[place]) for row in self._rows)
        return max(min(head, _NARROW), *cells, 1)

    def _most(self, place: int) -> int:
        return max(1, *(_width(row[place]) for row in self._rows))

    def _widths(self, part: Sequence[int], width: int) -> list[int]:
        """Share out what is left, one sign at a time, among the columns that can use it."""
        given = {place: self._least(place) for place in part}
        left = width - self._between(part) - sum(given.values())
        while left > 0 and (wanting := [one for one in part if given[one] < self._most(one)]):
            for place in wanting[:left]:
                given[place] += 1
            left -= len(wanting)
        return list(given.values())


def _lines(cell: Cell) -> list[str]:
    texts = cell if isinstance(cell, list | tuple) else [cell]
    return [shown(text, LONGEST_CELL) for text in texts]


def _cell(lines: Sequence[str]) -> Text:
    return Text("\n".join(lines))


def _width(lines: Sequence[str]) -> int:
    return max(map(cell_len, lines), default=0)
