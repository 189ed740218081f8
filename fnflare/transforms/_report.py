"""Tables and bar charts, as text and as HTML: what `Profile` is shown with.

Rows of cells that are text already go in, or bars with their lengths; lines of text, or a piece of HTML that needs
nothing beside it, come out.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Bar", "bar_chart", "html_table", "show_bytes", "show_count", "show_seconds", "text_table"]

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_COLOURS = {"forward": "#4878a8", "backward": "#d9823b", "outside": "#9a9a9a"}


def show_count(n: float) -> str:
    """A number with three digits and a prefix: ``"1.23 M"``."""
    for size, prefix in _PREFIXES:
        if n >= size:
            return f"{n / size:.3g} {prefix}" if n < 999.5 * size else f"{n / size:.0f} {prefix}"
    return f"{n:.3g}"


def show_bytes(n: float) -> str:
    """A number of bytes: ``"1.23 MB"``."""
    return f"{show_count(n)}B" if n >= 1e3 else f"{n:.0f} B"


def show_seconds(seconds: float) -> str:
    """A time: ``"12.3 ms"``."""
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds < 999.5 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """The lines of a table, the last row of which is set off by a rule; the first `left` columns start at the left,
    the others, of numbers, end at the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [
        "  ".join([c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))])
        for row in (header, *rows)
    ]
    rule = "-" * len(lines[0])
    return [line.rstrip() for line in (lines[0], rule, *lines[1:-1], rule, lines[-1])]


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """The same table in HTML."""

    def cells(row: Sequence[str], tag: str) -> str:
        side = ["left" if i < left else "right" for i in range(len(row))]
        return "".join(
            f'<{tag} style="text-align:{s}">{html.escape(c)}</{tag}>' for c, s in zip(row, side, strict=True)
        )

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table><tr>{cells(header, 'th')}</tr>{body}</table>"


class Bar(NamedTuple):
    """A bar of a chart: its name, what is written after it, and the lengths of its parts by kind."""

    name: str
    label: str
    parts: dict[str, float]


def bar_chart(bars: Sequence[Bar], width: int = 420) -> str:
    """Horizontal bars in SVG, to the scale of the longest, each with its parts one after another.

    Args:
        bars: from top to bottom; the kinds of their parts are "forward", "backward" and "outside".
        width: of the longest bar, in pixels.
    """
    longest = max((sum(bar.parts.values()) for bar in bars), default=0.0) or 1.0
    edge = 12 + 7 * max((len(bar.name) for bar in bars), default=0)
    pieces = []
    for i, bar in enumerate(bars):
        x, y = float(edge), 30 + 20 * i
        pieces.append(f'<text x="{edge - 6}" y="{y + 11}" text-anchor="end">{html.escape(bar.name)}</text>')
        for kind, length in bar.parts.items():
            size = width * length / longest
            pieces.append(f'<rect x="{x:.1f}" y="{y}" width="{size:.1f}" height="14" fill="{_COLOURS[kind]}"/>')
            x += size
        pieces.append(f'<text x="{x + 6:.1f}" y="{y + 11}">{html.escape(bar.label)}</text>')
    kinds = dict.fromkeys(kind for bar in bars for kind in bar.parts)
    for i, kind in enumerate(kinds):
        x = edge + 90 * i
        pieces.append(f'<rect x="{x}" y="6" width="12" height="12" fill="{_COLOURS[kind]}"/>')
        pieces.append(f'<text x="{x + 17}" y="16">{kind}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{edge + width + 110}" height="{34 + 20 * len(bars)}" '
        f'font-family="monospace" font-size="12" fill="currentColor">{"".join(pieces)}</svg>'
    )
