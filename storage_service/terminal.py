"""Text for a terminal: what others wrote without its control characters, tables, numbers and times as people read them."""

from __future__ import annotations

import io
import re
import sys
import unicodedata
from collections.abc import Sequence
from typing import Final

_NOT_ASCII: Final = re.compile(r"[^\n -~]")
# Up to so many seconds or numbers, and by what larger ones are told.
_SPANS: Final = ((60.0, 1.0, "s"), (3600.0, 60.0, "min"), (172_800.0, 3600.0, "h"), (float("inf"), 86_400.0, "d"))
_SHORT: Final = ((100_000, 1, ""), (10**8, 10**3, "k"), (10**11, 10**6, "M"), (10**15, 10**9, "G"))
# The end of what is cut, and how narrow a column is cut at most.
_CUT: Final = ".."
_LEAST: Final = 5


def escaped(character: str) -> str:
    """A character as JSON writes it in ASCII."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2))


def clean(text: str) -> str:
    """A text of which nothing commands a terminal or turns the text around: what cannot be printed is escaped."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else escaped(character) for character in text)


def ascii_json(text: str) -> str:
    """JSON in ASCII, otherwise as it was: numbers keep every digit."""
    return _NOT_ASCII.sub(lambda found: escaped(found[0]), text)


def print_anything() -> None:
    """Let standard output take every text: what its encoding has no letters for is escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def width(text: str) -> int:
    """How many columns of a terminal a clean text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def shorten(text: str, columns: int) -> str:
    """As much of a clean text as takes so many columns."""
    if width(text) <= columns:
        return text
    kept = ""
    for character in text:
        if width(kept + character) > columns - len(_CUT):
            break
        kept += character
    return (kept + _CUT)[: max(0, columns)]


def table(
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    cut: Sequence[int] = (),
    columns: int | None = None,
) -> list[str]:
    """Rows of clean texts as lines, the first row being the headings; the columns ``right`` are aligned there.

    Where it is wider than a terminal of so many ``columns``, those that ``cut`` names are cut, the widest first, to a few letters at least.
    """
    widths = [max(width(row[place]) for row in rows) for place in range(len(rows[0]))]
    over = 0 if columns is None else sum(widths) + 2 * (len(widths) - 1) - columns
    while over > 0 and (wide := [place for place in cut if widths[place] > _LEAST]):
        widths[max(wide, key=widths.__getitem__)] -= 1
        over -= 1
    lines = []
    for row in rows:
        cells = []
        for place, text in enumerate(row):
            text = shorten(text, widths[place])
            space = " " * (widths[place] - width(text))
            cells.append(space + text if place in right else text + space)
        lines.append("  ".join(cells).rstrip())
    return lines


def span(seconds: float) -> str:
    """A time span: 0.4 ms, 12 ms, 1.5 s, 48 s, 12 min, 3.5 h, 12 d."""
    if seconds < 0:
        return f"-{span(-seconds)}"
    if seconds < 1:
        return _figure(seconds * 1000, "ms")
    for most, unit, name in _SPANS:
        if seconds < most:
            return _figure(seconds / unit, name)
    return "for ever"


def _figure(number: float, unit: str) -> str:
    return f"{number:.1f} {unit}" if 0 < number < 9.95 else f"{number:,.0f} {unit}"


def short(number: float) -> str:
    """A number of few digits: 0.4, 99,999, 1,234k, 12M."""
    for most, unit, name in _SHORT:
        if number < most:
            return f"{number:.1f}" if number < 100 and number % 1 else f"{number / unit:,.0f}{name}"
    return f"{number:.2g}"
