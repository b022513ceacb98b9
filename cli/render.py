"""Tables and lines for people. Everything is cleaned of control characters here, once, on its way out.

On a terminal rich fits tables to its width; elsewhere they take the width they need, so that a file or a pipe
gets whole lines. NO_COLOR is honoured by rich.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from dlq.text import clean, clean_lines

WIDE = 4000  # columns where nothing limits them


@dataclass(frozen=True)
class Table:
    """Text cells under headings; columns named in `right` are aligned to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""
    right: frozenset[str] = field(default_factory=frozenset)

    def cells(self) -> Iterable[list[str]]:
        """The rows as clean text; None is a dash."""
        for row in self.rows:
            yield ["–" if value is None else clean_lines(value) for value in row]


Part = Table | str


def show(parts: Sequence[Part], file: TextIO) -> None:
    """Print tables and lines."""
    if not parts:
        return
    from rich.console import Console

    width = None if file.isatty() else WIDE
    console = Console(file=file, width=width, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        for part in parts:
            if isinstance(part, Table):
                console.print(_rich(part))
            else:
                console.print(clean_lines(part), soft_wrap=True)
    for line in captured.get().splitlines():
        file.write(line.rstrip() + "\n")


def _rich(table: Table) -> object:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    title = Text(table.title, style="bold") if table.title else None
    made = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", padding=(0, 1, 0, 0))
    for name in table.columns:
        made.add_column(Text(clean(name)), justify="right" if name in table.right else "left", overflow="fold")
    for row in table.cells():
        made.add_row(*(Text(cell) for cell in row))
    return made


def markdown(table: Table) -> str:
    """A GitHub table; pipes and markup in the cells are escaped, line breaks become <br>."""
    rules = ["---:" if name in table.right else "---" for name in table.columns]
    lines = [[_markdown_cell(clean(name)) for name in table.columns], rules]
    lines += [[_markdown_cell(cell) for cell in row] for row in table.cells()]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"**{_markdown_cell(clean(table.title))}**\n\n{body}" if table.title else body


def _markdown_cell(text: str) -> str:
    """Escapes what would start markup; brackets stay, for intervals, unless they make a link."""
    for character in "\\`*<>|":
        text = text.replace(character, "\\" + character)
    return text.replace("](", "]\\(").replace("\n", "<br>")


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """RFC 4180 text with a header line, without the last line break; None is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([clean(name) for name in columns])
    for row in rows:
        writer.writerow(["" if value is None else clean_lines(value) for value in row])
    return out.getvalue().rstrip("\n")
