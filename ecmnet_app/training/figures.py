"""An evaluation as a page with plots: reliability, confusions, and accuracy against corruption."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecmnet_app.errors import ConfigError
from ecmnet_app.media.files import write_atomically
from ecmnet_app.training.calibration import BINS
from ecmnet_app.training.evaluate import Evaluation

if TYPE_CHECKING:  # of the extra `train`
    from matplotlib.figure import Figure

__all__ = ["draw_confusion", "draw_corruptions", "draw_reliability", "svg_bytes", "write_report"]

STYLE: dict[Any, Any] = {"svg.hashsalt": "ecmnet", "svg.fonttype": "none"}
"""The same bytes for the same figures, and text that stays text."""


def write_report(evaluation: Evaluation, folder: Path) -> Path:
    """Write WEIGHTS-DATASET-SPLIT.md, and beside it its two plots, which end in -reliability.svg and -confusion.svg.

    Settings other than the default follow the split, so that no page takes the place of another's. Needs the extra
    `train`.

    Returns:
        The page's path.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    name = f"{evaluation.weights}-{evaluation.dataset}-{evaluation.split}"
    if evaluation.settings:
        name += "-" + re.sub(r"[^\w.-]+", "-", evaluation.settings)
    page = folder / f"{name}.md"
    text = "\n\n".join(
        [
            f"# {evaluation.weights} on {evaluation.dataset} {evaluation.split}",
            evaluation.table(),
            "Shares of each class's labelled pixels, answers of all classes:",
            evaluation.failures(),
            f"![Reliability]({name}-reliability.svg)",
            f"![Confusions]({name}-confusion.svg)",
        ]
    )
    try:
        write_atomically(page, f"{text}\n".encode())
        write_atomically(folder / f"{name}-reliability.svg", draw_reliability(evaluation))
        write_atomically(folder / f"{name}-confusion.svg", draw_confusion(evaluation))
    except OSError as error:
        raise ConfigError(f"cannot write to the folder {folder}: {error.strerror or error}; choose another") from error
    return page


def draw_reliability(evaluation: Evaluation) -> bytes:
    """Accuracy over confidence, at temperature 1 and at the weights' where that is another. SVG."""
    from matplotlib.figure import Figure

    panels = [("temperature 1", evaluation.uncalibrated)]
    if evaluation.temperature != 1:
        panels.append((f"temperature {evaluation.temperature:.2f}", evaluation.reliability))
    figure = Figure(figsize=(3.8 * len(panels), 3.8), layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, bins) in zip(row, panels, strict=True):
        pixels = np.array(bins["pixels"])
        filled = pixels > 0
        left = np.arange(BINS)[filled] / BINS
        accuracy, confidence = (np.array(bins[name])[filled] for name in ("accuracy", "confidence"))
        shares = pixels[filled] / max(1, pixels.sum())
        axes.bar(left, shares, 1 / BINS, align="edge", color="0.85", label="share of the pixels")
        axes.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle="--")
        axes.plot(confidence, accuracy, color="tab:blue", marker="o", markersize=4, label="accuracy")
        error = "-" if bins["ece"] is None else f"{100 * bins['ece']:.2f} %"
        axes.set(title=f"{title}: ECE {error}", xlabel="confidence", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    row[0].set_ylabel(f"accuracy, {evaluation.weights} on {evaluation.dataset} {evaluation.split}")
    row[0].legend(loc="upper left", frameon=False)
    return svg_bytes(figure)


def draw_confusion(evaluation: Evaluation) -> bytes:
    """What the pixels of each class are answered with, in percent: a row is a true class. SVG."""
    from matplotlib.figure import Figure

    rows = list(evaluation.confusion)
    columns = list(evaluation.confusion[rows[0]]) if rows else []
    shares = 100 * np.array([list(evaluation.confusion[name].values()) for name in rows]).reshape(len(rows), -1)
    figure = Figure(figsize=(1.6 + 0.55 * len(columns), 1.2 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (y, x), share in np.ndenumerate(shares):
        if share >= 0.5:
            axes.text(x, y, f"{share:.0f}", ha="center", va="center", color="white" if share > 60 else "black")
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel="answered", ylabel=f"true ({evaluation.dataset} {evaluation.split}), %")
    return svg_bytes(figure)


def draw_corruptions(clean: float, curves: Mapping[str, Sequence[float]], title: str) -> bytes:
    """mIoU over severity, one panel for each kind of corruption. SVG.

    Args:
        clean: mIoU of the pictures as they are, 0 to 1.
        curves: by kind, mIoU at severity 1, 2, ..., 0 to 1.
        title: of the whole.
    """
    from matplotlib.figure import Figure

    columns = 4
    lines = -(-len(curves) // columns)
    figure = Figure(figsize=(2.4 * columns, 0.5 + 2.1 * lines), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(curves) :]:
        axes.remove()
    for axes, (kind, scores) in zip(panels.flat, curves.items(), strict=False):
        axes.axhline(100 * clean, color="0.6", linewidth=1, linestyle="--")
        axes.plot(
            range(len(scores) + 1), [100 * s for s in (clean, *scores)], color="tab:blue", marker="o", markersize=4
        )
        axes.set_title(kind, fontsize=10)
        axes.set(ylim=(0, 100), xticks=range(len(scores) + 1))
    for axes in panels[:, 0]:
        axes.set_ylabel("mIoU, %")
    for column in range(columns):
        shown = [panels[line, column] for line in range(lines) if line * columns + column < len(curves)]
        if shown:
            shown[-1].set_xlabel("severity")
            shown[-1].tick_params(labelbottom=True)
    return svg_bytes(figure)


def svg_bytes(figure: Figure) -> bytes:
    """The figure as SVG: the same bytes whenever it is drawn again."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    # Matplotlib ends some lines with blanks.
    return b"\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + b"\n"
