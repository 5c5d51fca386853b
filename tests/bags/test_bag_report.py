"""The report: its numbers beside a count of the masks in the bag, and the page in Chromium."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import EPOCH, drive, image_of, masks_of, moving_blobs, write_messages, write_recording
from serving import chromium, why_no_chromium

from ecmnet_app.bags import BagJob, BagSettings, BagSummary, Gap, segment_bag
from ecmnet_app.bags.digest import BagDigest, columns_of, digest_bag
from ecmnet_app.bags.frames import FrameTable, read_frames
from ecmnet_app.bags.report import FailedBag, write_report
from ecmnet_app.core import Segmenter
from ecmnet_app.errors import BagError

SECOND = 10**9


def table_of(seconds: list[float], seed: int = 0) -> FrameTable:
    numbers = np.random.default_rng(seed).random((len(seconds), 4))
    stamps = np.round(np.array(seconds) * SECOND).astype(np.int64)
    areas = numbers[:, :3] / numbers[:, :3].sum(axis=1, keepdims=True)
    return FrameTable(("A", "B", "Unlabelled"), stamps + 5, stamps, numbers[:, 3], areas)


def test_columns_end_at_gaps() -> None:
    table = table_of([0.0, 1.0, 2.0, 10.0, 10.5, 11.0])
    columns = columns_of(table, {2 * SECOND}, most=3)
    assert columns.frames.tolist() == [2, 1, 2, 1]
    assert columns.segments.tolist() == [0, 0, 1, 1]
    assert columns.starts.tolist() == [0, 2, 10, 11]
    assert columns.ends.tolist() == [1, 2, 10.5, 11]
    np.testing.assert_allclose(columns.rates, [1, np.nan, 2, np.nan])
    np.testing.assert_allclose(columns.confidence[2], [table.confidence[3:5].mean(), *sorted(table.confidence[3:5])])


@given(st.integers(1, 60), st.integers(1, 20), st.sets(st.integers(0, 59)), st.integers(0, 9))
def test_columns_hold_every_frame_once(count: int, most: int, gaps: set[int], seed: int) -> None:
    table = table_of([0.1 * k for k in range(count)], seed)
    columns = columns_of(table, {int(table.stamps[k]) for k in gaps if k < count}, most)
    assert columns.frames.sum() == count
    assert len(columns.frames) <= most + len(gaps) + 1
    weighted = np.average(columns.areas, axis=0, weights=columns.frames)
    np.testing.assert_allclose(weighted, table.areas.mean(axis=0))
    assert columns.confidence[:, 1].min() == table.confidence.min()
    assert columns.confidence[:, 2].max() == table.confidence.max()


def test_times_are_stamps_that_go_forward_or_else_log_times() -> None:
    forward, still = table_of([0.0, 1.0]), table_of([1.0, 1.0])
    assert forward.times is forward.stamps
    assert still.times is still.log_times


def test_a_table_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="cannot read"):
        read_frames(tmp_path / "frames.csv")
    (tmp_path / "frames.csv").write_text("")
    with pytest.raises(BagError, match="segment the bag again"):
        read_frames(tmp_path / "frames.csv")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> BagJob:
    folder = tmp_path_factory.mktemp("report")
    return BagJob(drive(folder / "drive.mcap"), folder / "answers" / "drive")


@pytest.fixture(scope="module")
def digest(job: BagJob, segmenter: Segmenter) -> BagDigest:
    summary = segment_bag(job, BagSettings(), segmenter)
    return digest_bag(job, summary, segmenter.label_set)


@pytest.fixture(scope="module")
def report(digest: BagDigest, segmenter: Segmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, [digest], segmenter.label_set, "tiny")
    return path


@pytest.fixture(scope="module")
def browser() -> Any:
    reason = why_no_chromium()
    if reason:
        pytest.skip(reason)
    with chromium() as browser:
        yield browser


def opened(browser: Any, path: Path, **options: Any) -> tuple[Any, list[str]]:
    """The page, and what it has asked for."""
    page = browser.new_context(**options).new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri(), wait_until="networkidle")
    return page, asked


def counted(bag: Path) -> dict[str, tuple[int, dict[int, float]]]:
    """Pictures of each mask topic, and the mean share of each id in them."""
    shares: dict[str, Counter[int]] = defaultdict(Counter)
    frames: Counter[str] = Counter()
    for topic, message in masks_of(bag):
        frames[topic] += 1
        for id_, count in zip(*np.unique(np.frombuffer(message.data, np.uint8), return_counts=True), strict=True):
            shares[topic][int(id_)] += count / (message.width * message.height)
    return {topic: (count, {k: v / count for k, v in shares[topic].items()}) for topic, count in frames.items()}


@pytest.mark.browser
def test_the_page_says_what_is_in_the_masks(browser: Any, report: Path, job: BagJob, segmenter: Segmenter) -> None:
    page, _ = opened(browser, report)
    answers = counted(job.bag)
    assert len(answers) == 2
    names = {label.id: label.name for label in segmenter.label_set.labels} | {255: "Unlabelled"}
    colors = {label.name: "rgb({}, {}, {})".format(*label.color) for label in segmenter.label_set.labels}
    for article in page.locator("article").all():
        topic = article.locator("h3").inner_text()
        (count, shares) = next(v for k, v in answers.items() if k.startswith(topic.removesuffix("/image_raw")))
        facts = dict(zip(article.locator("dt").all_inner_texts(), article.locator("dd").all_inner_texts(), strict=True))
        assert facts["pictures"] == str(count)
        assert facts["gaps"] == ("1" if topic == "/front/image_raw" else "0")
        assert facts["pictures a second"] == ("5" if topic == "/front/image_raw" else "2")
        told = {}
        for item in article.locator(".legend li").all():
            name, share = re.fullmatch(r"(\S+)\s*([\d.]+)\s%", item.inner_text()).groups()
            told[name] = float(share)
            if name in colors:
                swatch = item.locator(".swatch").evaluate("one => getComputedStyle(one).backgroundColor")
                assert swatch == colors[name]
        assert told == pytest.approx({n: 100 * shares.get(id_, 0.0) for id_, n in names.items()}, abs=0.0051)
        assert list(told.values()) == sorted(told.values(), reverse=True)
        # The areas are drawn in the same colours, and their heights are the shares.
        for path in article.locator(".areas path").all():
            name = path.locator("title").evaluate("one => one.textContent")
            assert told[name] > 0
            if name in colors:
                assert path.evaluate("one => getComputedStyle(one).fill") == colors[name]
        article.locator("details", has_text="The curves in numbers").locator("summary").click()
        rows = article.locator("details tbody tr").all_inner_texts()
        assert sum(int(row.split("\t")[1]) for row in rows if row.count("\t") > 1) == count


@pytest.mark.browser
def test_the_page_asks_for_nothing(browser: Any, report: Path) -> None:
    page, asked = opened(browser, report, offline=True)
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    images = page.locator("img")
    assert images.count() == 16
    page.wait_for_function("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    # And it could not if it wanted to.
    blocked = page.evaluate("fetch('http://127.0.0.1:9/').then(() => false, () => true)")
    assert blocked
    assert "default-src 'none'" in report.read_text("utf-8")


@pytest.mark.browser
def test_the_page_fits_a_phone_and_the_night(browser: Any, report: Path) -> None:
    backgrounds = set()
    for scheme in ("light", "dark"):
        page, _ = opened(browser, report, color_scheme=scheme, viewport={"width": 360, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        colors = page.evaluate(
            "(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))"
        )
        backgrounds.add(tuple(colors))
        smallest = page.evaluate(
            "Math.min(...[...document.querySelectorAll('body *')].filter(one => one.innerText)"
            ".map(one => parseFloat(getComputedStyle(one).fontSize)))"
        )
        assert smallest >= 12
        unnamed = page.locator("svg:not([role=img][aria-label]), img:not([alt])").count()
        assert unnamed == 0
    assert len(backgrounds) == 2


@pytest.mark.browser
def test_several_bags_are_one_page(browser: Any, digest: BagDigest, segmenter: Segmenter, tmp_path: Path) -> None:
    odd = write_recording(
        tmp_path / "<b>&odd.mcap", {"/<i>one</i>": (lambda _: np.zeros((40, 56, 3), np.uint8), [0.0])}
    )
    job = BagJob(odd, tmp_path / "odd")
    other = digest_bag(job, segment_bag(job, BagSettings(topics=("/<i>one</i>",)), segmenter), segmenter.label_set)
    failed = FailedBag("drives/none.mcap", "drives/none.mcap is an empty file; copy it again")
    path = tmp_path / "report.html"
    write_report(path, [digest, other, failed], segmenter.label_set, "tiny")
    page, asked = opened(browser, path)
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    first = page.locator("dl").first
    facts = dict(zip(first.locator("dt").all_inner_texts(), first.locator("dd").all_inner_texts(), strict=True))
    assert facts["pictures"] == str(digest.summary.frames + 1)
    assert facts["not segmented"] == "1"
    rows = page.locator("main > .scroll tbody tr")
    assert rows.count() == 3
    assert page.locator("h2").all_inner_texts() == ["drive.mcap", "<b>&odd.mcap", "none.mcap"]
    assert page.locator("h3").all_inner_texts() == ["/front/image_raw", "/rear/image_raw", "/<i>one</i>"]
    assert page.locator("h3 i, h2 b").count() == 0
    assert page.locator("#bag-2").inner_text().endswith(failed.problem)
    rows.nth(2).locator("a").click()
    assert page.url.endswith("#bag-2")


def test_stamps_of_another_clock_that_stand_still_are_no_times(segmenter: Segmenter, tmp_path: Path) -> None:
    blob = moving_blobs(48, 64, 0)
    seconds = [0.0, 0.1, 0.2, 0.3, 1.3, 1.4]
    stamps = [1.0, 1.1, 1.1, 1.2, 1.3, 1.4]  # since the camera was switched on, one of them twice
    rows = [
        ("/camera", EPOCH + round(second * SECOND), image_of(blob(index), round(stamps[index] * SECOND)))
        for index, second in enumerate(seconds)
    ]
    job = BagJob(write_messages(tmp_path / "a.mcap", rows), tmp_path / "a")
    summary = segment_bag(job, BagSettings(), segmenter)
    assert summary.topics[0].gaps == [Gap(EPOCH + 3 * SECOND // 10, 1.0)]
    assert summary.topics[0].rate == pytest.approx(10)
    digest = digest_bag(job, summary, segmenter.label_set)
    assert digest.topics[0].columns.segments[-1] == 1
    write_report(tmp_path / "report.html", [digest], segmenter.label_set, "tiny")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "stamps do not go forward" in text
    assert "<tr><td>0:00.3</td><td>1.000 s</td></tr>" in text


def test_what_is_missing_is_told(digest: BagDigest, segmenter: Segmenter, tmp_path: Path) -> None:
    first, second = digest.summary.topics
    summary = BagSummary.from_dict(digest.summary.to_dict())
    summary.problems = ["drive.mcap breaks off at byte 1,000"]
    summary.topics[0].skipped, summary.topics[0].lost = {"has an encoding that is not known, foo8": 3}, 2
    summary.topics[1].lost = None
    topics = tuple(replace(topic, summary=one) for topic, one in zip(digest.topics, summary.topics, strict=True))
    path = tmp_path / "report.html"
    write_report(path, [BagDigest(summary, topics)], segmenter.label_set, "tiny")
    text = path.read_text("utf-8")
    for words in (
        "drive.mcap breaks off at byte 1,000",
        "3 messages skipped: has an encoding that is not known, foo8",
        "2 messages lost",
        "does not say how many messages it should hold",
    ):
        assert words in text
    assert first.gaps == [Gap(first.gaps[0].after_ns, pytest.approx(1.6))]
    assert "1 gap between pictures" in text
    assert "1.600 s" in text
    assert not second.gaps


def test_a_report_that_cannot_be_written_is_told(digest: BagDigest, segmenter: Segmenter, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BagError, match="cannot write"):
        write_report(tmp_path / "file" / "report.html", [digest], segmenter.label_set, "tiny")
