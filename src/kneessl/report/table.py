"""Tables as CSV files, and as aligned text for the terminal."""

import csv
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from kneessl.files import replacing

WIDTH = 120
"""Characters a line that a table for the terminal keeps to, unless a name is very long."""


def columns_of(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """Return the keys of all rows, in the order they are met."""
    return list(dict.fromkeys(column for row in rows for column in row))


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a CSV file, whole or not at all: a header, then a line for each row, unrounded.

    What a row lacks, or has as None, is left empty.
    """
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns_of(rows), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def joined(values: Iterable[object]) -> str:
    """Return several figures as one cell of a CSV file: separated by spaces, unrounded."""
    return " ".join(map(str, values))


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = ()) -> list[str]:
    """Return rows as lines of text whose columns are as wide as their longest cell, two spaces apart.

    Args:
        rows: Cells, equally many in every row.
        left: The columns that are aligned to the left; all others are to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if k in left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def with_note(lines: Sequence[str], note: str) -> str:
    """Return lines of a table as one text, with what its columns mean below."""
    return "\n".join([*lines, "", *textwrap.wrap(note, WIDTH)]) + "\n"
