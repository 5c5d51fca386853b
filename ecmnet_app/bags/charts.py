"""Curves over time as SVG: shapes alone, stretched to whatever space the page has, with words beside them in HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from ecmnet_app.bags.digest import Columns
from ecmnet_app.core import LabelSet

__all__ = ["areas_chart", "band_chart", "colors_of", "shares_bar"]

WIDTH, HEIGHT = 1000, 100
"""Of the drawings, in their own units."""


def colors_of(label_set: LabelSet) -> list[str]:
    """CSS colours by id, unlabelled last."""
    return ["rgb({} {} {})".format(*label.color) for label in label_set.with_unlabelled]


def areas_chart(columns: Columns, seconds: float, names: Sequence[str], colors: Sequence[str], text: str) -> str:
    """Shares of the classes above each other; empty where there is a gap.

    Args:
        seconds: from the left edge to the right one.
        names, colors: by id, unlabelled last.
        text: what is to be seen, for those who do not see it.
    """
    tops = HEIGHT * (1 - np.cumsum(columns.areas, axis=1))
    bottoms = HEIGHT * (1 - np.cumsum(columns.areas, axis=1) + columns.areas)
    shapes = []
    for id_, (name, color) in enumerate(zip(names, colors, strict=True)):
        if not columns.areas[:, id_].any():
            continue
        outlines = []
        for x, some in _stretches(columns, seconds):
            top, bottom = _ended(tops[some, id_]), _ended(bottoms[some, id_])
            outlines.append(_path(np.append(x, x[::-1]), np.append(top, bottom[::-1])) + "Z")
        shapes.append(f'<path fill="{color}" d="{"".join(outlines)}"><title>{escape(name)}</title></path>')
    return _svg(shapes, text)


def band_chart(
    columns: Columns, seconds: float, middle: NDArray[np.float64], top: float, text: str, band: bool = False
) -> str:
    """One curve, from 0 to `top`, broken at gaps.

    Args:
        middle: NaN where there is none. Shape: (M,).
        band: with the least and greatest confidence behind it.
    """
    lines, bands = [], []
    for x, some in _stretches(columns, seconds):
        y = _ended(_up(middle[some], top))
        known = np.isfinite(y)
        if known.any():
            lines.append(_path(x[known], y[known]))
        if band:
            low, high = (_ended(_up(columns.confidence[some, k], top)) for k in (1, 2))
            bands.append(_path(np.append(x, x[::-1]), np.append(high, low[::-1])) + "Z")
    return _svg([f'<path class="band" d="{"".join(bands)}"/>', f'<path class="line" d="{"".join(lines)}"/>'], text)


def shares_bar(areas: NDArray[np.float64], names: Sequence[str], colors: Sequence[str], text: str) -> str:
    """The shares of the classes beside each other.

    Args:
        areas: sum to 1. Shape: (K + 1,).
    """
    ends = WIDTH * np.cumsum(areas)
    shapes = [
        f'<rect x="{_short(end - WIDTH * area)}" width="{_short(WIDTH * area)}" height="{HEIGHT}" fill="{color}">'
        f"<title>{escape(name)}</title></rect>"
        for name, color, area, end in zip(names, colors, areas, ends, strict=True)
        if area > 0
    ]
    return _svg(shapes, text)


def _stretches(columns: Columns, seconds: float) -> Iterator[tuple[NDArray[np.float64], NDArray[np.intp]]]:
    """Of each stretch between gaps where its points are: its start, the middle of each column, and its end."""
    scale = WIDTH / seconds if seconds > 0 else 0.0
    for segment in range(int(columns.segments[-1]) + 1):
        some = np.flatnonzero(columns.segments == segment)
        starts, ends = columns.starts[some] * scale, columns.ends[some] * scale
        first, last = starts[0], ends[-1]
        if last - first < 2:  # a frame alone is to be seen too
            first = min(first, WIDTH - 2.0)
            last = WIDTH if seconds == 0 else first + 2
        yield np.concatenate([[first], np.clip((starts + ends) / 2, first, last), [last]]), some


def _ended(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """With the first and the last value once more, for the stretch's ends."""
    return np.concatenate([values[:1], values, values[-1:]])


def _up(values: NDArray[np.float64], top: float) -> NDArray[np.float64]:
    return HEIGHT * (1 - values / top)


def _path(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    return "M" + "L".join(f"{_short(a)},{_short(b)}" for a, b in zip(x, y, strict=True))


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _svg(shapes: Sequence[str], text: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{escape(text)}">'
        f"{''.join(shapes)}</svg>"
    )
