"""The report: one HTML page of any number of bags, which asks for nothing from outside."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecmnet_app.bags.charts import areas_chart, band_chart, colors_of, shares_bar
from ecmnet_app.bags.digest import BagDigest, Columns, Thumbnail, TopicDigest
from ecmnet_app.bags.storage import clock
from ecmnet_app.core import LabelSet
from ecmnet_app.errors import BagError
from ecmnet_app.media.files import write_atomically

__all__ = ["FailedBag", "most_thumbnails", "write_report"]

TICKS = 5
THUMBNAILS = 480
"""Of all bags, where each has one topic."""
ROWS = 12
"""Most rows of the table that says what a topic's curves show."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Under which a browser loads nothing that is not in the page."""


@dataclass(frozen=True)
class FailedBag:
    """A bag that has no answers."""

    source: str
    problem: str


def most_thumbnails(bags: int) -> int:
    """Pictures of each topic in a page of so many bags, that it stays one that opens."""
    return min(8, max(2, THUMBNAILS // max(1, bags)))


def write_report(path: Path, bags: Sequence[BagDigest | FailedBag], label_set: LabelSet, weights: str) -> None:
    """Write the page; a whole file or none.

    Args:
        bags: in the order in which they are shown.
        label_set: of the weights that segmented all of them.
        weights: their name.

    Raises:
        BagError: the file cannot be written.
    """
    try:
        write_atomically(path, "\n".join(_page(bags, label_set, weights)).encode())
    except OSError as error:
        raise BagError(f"cannot write {path}: {error.strerror or error}") from error


@dataclass(frozen=True)
class _Classes:
    """Names and CSS colours by id, unlabelled last."""

    names: tuple[str, ...]
    colors: tuple[str, ...]

    def by_share(self, areas: NDArray[np.float64]) -> list[int]:
        """Ids, the largest first."""
        return np.argsort(-areas, kind="stable").tolist()

    def largest(self, areas: NDArray[np.float64], count: int = 3) -> str:
        """In words."""
        shown = [id_ for id_ in self.by_share(areas)[:count] if areas[id_] > 0]
        return ", ".join(f"{self.names[id_]} {_percent(areas[id_], 0)}" for id_ in shown)


def _page(bags: Sequence[BagDigest | FailedBag], label_set: LabelSet, weights: str) -> Iterator[str]:
    classes = _Classes(tuple(label.name for label in label_set.with_unlabelled), tuple(colors_of(label_set)))
    done = [bag for bag in bags if isinstance(bag, BagDigest)]
    frames = sum(bag.summary.frames for bag in done)
    title = f"{_count(len(bags), 'recording')}, segmented" if len(bags) > 1 else f"{_name(bags[0])}, segmented"
    yield f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{Path(__file__).with_name("report.css").read_text("utf-8")}</style>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="quiet">Every pixel named by ECMNet: weights {escape(weights)}, classes of {escape(label_set.name)}.</p>
</header>
<main>"""
    if len(bags) > 1:
        yield _facts(
            ("recordings", f"{len(bags):,}"),
            ("pictures", f"{frames:,}"),
            ("length", _duration(sum(_length(bag) for bag in done))),
            ("skipped", f"{sum(bag.summary.skipped for bag in done):,}"),
            ("lost", f"{sum(_lost(bag) for bag in done):,}"),
            ("not segmented", f"{len(bags) - len(done):,}"),
        )
        yield _overview(bags, classes)
    for number, bag in enumerate(bags):
        yield f'<section id="bag-{number}">'
        yield from _bag(bag, classes, alone=len(bags) == 1)
        yield "</section>"
    yield "</main></body></html>"


def _overview(bags: Sequence[BagDigest | FailedBag], classes: _Classes) -> str:
    """A row for each bag."""
    rows = []
    for number, bag in enumerate(bags):
        link = f'<a href="#bag-{number}">{escape(_name(bag))}</a>'
        if isinstance(bag, FailedBag):
            rows.append(f'<tr><td>{link}</td><td colspan="7">not segmented</td></tr>')
            continue
        areas = _mean_areas(bag.topics)
        bar = "" if areas is None else _shares_bar(areas, classes)
        problems = len(bag.summary.problems)
        rows.append(
            f"<tr><td>{link}</td><td>{bar}</td><td>{len(bag.topics)}</td><td>{bag.summary.frames:,}</td>"
            f"<td>{_duration(_length(bag))}</td><td>{bag.summary.skipped:,}</td><td>{_lost(bag):,}</td>"
            f"<td>{problems or ''}</td></tr>"
        )
    heads = ("recording", "classes", "topics", "pictures", "length", "skipped", "lost", "problems")
    return _table(heads, rows, "All recordings")


def _bag(bag: BagDigest | FailedBag, classes: _Classes, alone: bool) -> Iterator[str]:
    if not alone:
        yield f"<h2>{escape(_name(bag))}</h2>"
    if isinstance(bag, FailedBag):
        yield f'<ul class="problems"><li>{escape(bag.problem)}</li></ul>'
        return
    summary = bag.summary
    source, out = escape(summary.source), escape(summary.out)
    yield f'<p class="quiet">{source}, from {clock(summary.start_ns)} UTC. Masks in {out}.</p>'
    if summary.problems:
        yield f'<ul class="problems">{"".join(f"<li>{escape(problem)}</li>" for problem in summary.problems)}</ul>'
    if alone:
        yield _facts(
            ("pictures", f"{summary.frames:,}"),
            ("length", _duration(_length(bag))),
            ("topics", f"{len(summary.topics)}"),
            ("skipped", f"{summary.skipped:,}"),
            ("lost", f"{_lost(bag):,}"),
        )
    for sentence in summary.left_out:
        yield f'<p class="quiet">{escape(sentence)}.</p>'
    digests = {topic.summary.topic: topic for topic in bag.topics}
    for topic in summary.topics:
        yield f'<article class="topic"><h3>{escape(topic.topic)}</h3>'
        yield f'<p class="quiet">{escape(topic.kind)}</p>'
        if topic.topic in digests:
            yield from _topic(digests[topic.topic], classes)
        else:
            yield "<p>No picture that could be segmented.</p>"
        yield from _missing(topic.skipped, topic.lost)
        yield "</article>"


def _topic(topic: TopicDigest, classes: _Classes) -> Iterator[str]:
    summary, columns = topic.summary, topic.columns
    confidence = "" if summary.confidence is None else _percent(summary.confidence)
    yield _facts(
        ("pictures", f"{summary.frames:,}"),
        ("length", _duration(topic.seconds)),
        ("pictures a second", "" if summary.rate is None else f"{summary.rate:.4g}"),
        ("gaps", f"{len(summary.gaps):,}"),
        ("mean confidence", confidence),
    )
    zero = f"0:00 is {clock(topic.start_ns)} UTC"
    if topic.by_log_time:
        zero += ", when it was recorded: the pictures' own stamps do not go forward"
    yield f'<p class="quiet">{zero}.</p>'
    text = f"Share of each class over time. On average {classes.largest(topic.areas, len(classes.names))}."
    chart = areas_chart(columns, topic.seconds, classes.names, classes.colors, text)
    yield _chart("Share of the picture that each class covers", chart, ("100 %", "50 %", "0 %"), topic.seconds, "areas")
    yield _legend(topic.areas, classes)
    low, high = columns.confidence[:, 1].min(), columns.confidence[:, 2].max()
    text = f"Mean confidence of each picture over time, between {_percent(low)} and {_percent(high)}."
    chart = band_chart(columns, topic.seconds, columns.confidence[:, 0], 1.0, text, band=True)
    yield _chart("Mean confidence of a picture, and its range", chart, ("100 %", "0 %"), topic.seconds)
    rates = columns.rates[np.isfinite(columns.rates)]
    if len(rates):
        top = _round_up(float(rates.max()))
        text = f"Pictures a second over time, between {rates.min():.3g} and {rates.max():.3g}."
        chart = band_chart(columns, topic.seconds, columns.rates, top, text)
        yield _chart("Pictures a second", chart, (f"{top:g}", "0"), topic.seconds)
    if summary.gaps:
        gaps = [
            f"<tr><td>{_clock((gap.after_ns - topic.start_ns) / 1e9)}</td><td>{gap.seconds:.3f} s</td></tr>"
            for gap in summary.gaps
        ]
        table = _table(("after", "without a picture for"), gaps, "Gaps between pictures")
        shown = " open" if len(gaps) <= ROWS else ""
        yield f"<details{shown}><summary>{_count(len(gaps), 'gap')} between pictures</summary>{table}</details>"
    yield f'<div class="thumbnails">{"".join(_thumbnail(one, classes) for one in topic.thumbnails)}</div>'
    rows = [_row(columns, some, topic.areas > 0) for some in np.array_split(np.arange(len(columns.frames)), ROWS)]
    names = [name for name, area in zip(classes.names, topic.areas, strict=True) if area > 0]
    table = _table(("from", "pictures", "confidence", *names), [row for row in rows if row], "The curves in numbers")
    yield f"<details><summary>The curves in numbers</summary>{table}</details>"


def _missing(skipped: dict[str, int], lost: int | None) -> Iterator[str]:
    """What a topic should have had."""
    items = [f"{_count(count, 'message')} skipped: {escape(reason)}" for reason, count in skipped.items()]
    if lost:
        items.append(f"{_count(lost, 'message')} lost: the recording says that they are there, and they cannot be read")
    if items:
        yield f'<ul class="problems">{"".join(f"<li>{item}</li>" for item in items)}</ul>'
    if lost is None:
        yield '<p class="quiet">The recording does not say how many messages it should hold.</p>'


def _row(columns: Columns, some: NDArray[np.intp], shown: NDArray[np.bool_]) -> str:
    """A row for some columns that follow each other."""
    if not len(some):
        return ""
    frames = columns.frames[some]
    confidence = np.average(columns.confidence[some, 0], weights=frames)
    areas = np.average(columns.areas[some], axis=0, weights=frames)[shown]
    cells = [_clock(columns.starts[some[0]]), f"{frames.sum():,}", _percent(confidence), *map(_percent, areas)]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _thumbnail(one: Thumbnail, classes: _Classes) -> str:
    what = classes.largest(one.areas)
    source = base64.b64encode(one.jpeg).decode()
    return (
        f'<figure><img src="data:image/jpeg;base64,{source}" width="{one.width}" height="{one.height}" '
        f'decoding="async" alt="The picture at {_clock(one.seconds)} under its classes: {escape(what)}">'
        f'<figcaption>{_clock(one.seconds)} <span class="quiet">{escape(what)}</span></figcaption></figure>'
    )


def _legend(areas: NDArray[np.float64], classes: _Classes) -> str:
    items = [
        f'<li{"" if areas[id_] > 0 else " class=absent"}><span class="swatch" style="--color: {classes.colors[id_]}">'
        f'</span>{escape(classes.names[id_])}<span class="share">{_percent(areas[id_], 2)}</span></li>'
        for id_ in classes.by_share(areas)
    ]
    return f'<ul class="legend" aria-label="Mean share of each class">{"".join(items)}</ul>'


def _chart(caption: str, drawing: str, scale: Sequence[str], seconds: float, kind: str = "") -> str:
    ticks = "".join(f"<span>{_clock(seconds * k / (TICKS - 1))}</span>" for k in range(TICKS if seconds else 1))
    marks = "".join(f"<span>{mark}</span>" for mark in scale)
    return (
        f'<figure class="chart {kind}"><figcaption>{caption}</figcaption>'
        f'<div class="scale" aria-hidden="true">{marks}</div>{drawing}'
        f'<div class="ticks" aria-hidden="true">{ticks}</div></figure>'
    )


def _shares_bar(areas: NDArray[np.float64], classes: _Classes) -> str:
    return shares_bar(areas, classes.names, classes.colors, f"Mean shares: {classes.largest(areas, len(areas))}")


def _facts(*pairs: tuple[str, str]) -> str:
    shown = [f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs if value]
    return f'<dl class="facts">{"".join(shown)}</dl>'


def _table(heads: Sequence[str], rows: Sequence[str], label: str) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _name(bag: BagDigest | FailedBag) -> str:
    return Path(bag.summary.source if isinstance(bag, BagDigest) else bag.source).name


def _length(bag: BagDigest) -> float:
    return (bag.summary.end_ns - bag.summary.start_ns) / 1e9


def _lost(bag: BagDigest) -> int:
    return sum(topic.lost or 0 for topic in bag.summary.topics)


def _mean_areas(topics: Sequence[TopicDigest]) -> NDArray[np.float64] | None:
    """Over all pictures of all topics."""
    if not topics:
        return None
    return np.average([topic.areas for topic in topics], axis=0, weights=[topic.summary.frames for topic in topics])


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _round_up(number: float) -> float:
    """To one digit, and above it."""
    unit = 10.0 ** math.floor(math.log10(number))
    return unit * (math.floor(number / unit) + 1)


def _clock(seconds: float) -> str:
    """1:02:03.4"""
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{start}:{rest // 10:02d}.{rest % 10}" if rest % 10 else f"{start}:{rest // 10:02d}"


def _duration(seconds: float) -> str:
    """In the unit that fits."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
