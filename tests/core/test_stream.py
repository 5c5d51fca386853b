"""The stream worker with real threads, against a model of what each source must be answered."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import Future

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecmnet_app.core import CAMVID, Segmentation
from ecmnet_app.core.stream import Answer, FrameDroppedError, Source, StreamWorker
from ecmnet_app.errors import ImageError, StreamError

TIMEOUT = 20  # of waits that end in milliseconds unless something hangs


def picture(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, np.uint8)


def answer_with_value(images: list[np.ndarray], **options: object) -> list[Segmentation]:
    """A network that sees the value of a picture; 255 is a picture it cannot take, 254 one that it trips over,
    253 one that would end the program."""
    values = [int(image[0, 0, 0]) for image in images]
    if 255 in values:
        raise ImageError("a bad picture")
    if 254 in values:
        raise ZeroDivisionError("a bug")
    if 253 in values:
        raise SystemExit(1)
    return [Segmentation(np.full((2, 2), value, np.uint8), np.ones((2, 2), np.float32), CAMVID) for value in values]


class Gate:
    """`answer_with_value`, one batch at a time, each only when told; records what each batch held."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self._entered = threading.Semaphore(0)
        self._opened = threading.Semaphore(0)

    def __call__(self, images: list[np.ndarray], **options: object) -> list[Segmentation]:
        self.batches.append([int(image[0, 0, 0]) for image in images])
        self._entered.release()
        assert self._opened.acquire(timeout=TIMEOUT)
        return answer_with_value(images)

    def wait_until_running(self) -> None:
        assert self._entered.acquire(timeout=TIMEOUT), "the worker did not start a batch"

    def let_one_batch_pass(self) -> None:
        self._opened.release()

    def open(self) -> None:
        self._opened.release(1_000)


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open()


def value_of(answer: Answer) -> int:
    return int(answer.segmentation.labels[0, 0])


def get(future: Future[Answer]) -> Answer:
    return future.result(TIMEOUT)


def test_an_answer_carries_sequence_age_and_the_segmentation():
    def slow(images: list[np.ndarray]) -> list[Segmentation]:
        time.sleep(0.05)
        return answer_with_value(images)

    with StreamWorker(slow) as worker, worker.open() as source:
        for sequence, value in enumerate([7, 8, 9]):
            before = time.monotonic()
            answer = get(source.submit(picture(value)))
            waited = time.monotonic() - before
            assert (answer.sequence, value_of(answer), answer.dropped) == (sequence, value, 0)
            assert 0.05 <= answer.age <= waited


def test_only_the_newest_waiting_frame_runs_and_the_others_are_told(gate):
    with StreamWorker(gate) as worker, worker.open() as source:
        first = source.submit(picture(0))
        gate.wait_until_running()
        waiting = [source.submit(picture(value)) for value in (1, 2, 3)]
        for sequence, future in enumerate(waiting[:-1], start=1):
            answer = get(future)  # while the first one is still running
            assert answer.sequence == sequence
            assert answer.dropped == sequence
            with pytest.raises(FrameDroppedError, match="newer frame"):
                answer.segmentation  # noqa: B018
        assert not first.done()
        gate.open()
        assert value_of(get(first)) == 0
        newest = get(waiting[-1])
        assert (value_of(newest), newest.sequence, newest.dropped, source.dropped) == (3, 3, 2, 2)
        assert gate.batches == [[0], [3]]


def test_waiting_sources_share_a_batch_in_order_of_their_turns(gate):
    with StreamWorker(gate, max_batch=3) as worker:
        busy = worker.open()
        busy.submit(picture(100))
        gate.wait_until_running()
        sources = [worker.open() for _ in range(5)]
        futures = [source.submit(picture(value)) for value, source in enumerate(sources)]
        futures[0] = sources[0].submit(picture(50))  # a newer frame keeps its source's turn
        gate.open()
        assert [value_of(get(future)) for future in futures] == [50, 1, 2, 3, 4]
        assert gate.batches == [[100], [50, 1, 2], [3, 4]]


def test_only_frames_with_equal_options_share_a_batch(gate):
    seen = []

    def predict(images: list[np.ndarray], **options: object) -> list[Segmentation]:
        seen.append((len(images), options))
        return gate(images)

    with StreamWorker(predict) as worker:
        worker.open().submit(picture(0))
        gate.wait_until_running()
        wanted = [{"resolution": 360}, {"resolution": 360}, {"resolution": 720}, {}]
        futures = [worker.open().submit(picture(1), **options) for options in wanted]
        gate.open()
        for future in futures:
            assert value_of(get(future)) == 1
    assert seen == [(1, {}), (2, {"resolution": 360}), (1, {"resolution": 720}), (1, {})]


@pytest.mark.parametrize("capacity", [[3, 3, 3, 4], [2, 3], [1], [3]])
def test_cameras_that_send_in_step_lose_equally_many_frames(gate, capacity):
    """Four of them, the first always first; `capacity` frames are run between one burst and the next."""
    with StreamWorker(gate, max_batch=1) as worker:
        cameras = [worker.open() for _ in range(4)]
        cameras[0].submit(picture(0))
        gate.wait_until_running()
        for burst in range(40):
            for value, camera in enumerate(cameras):
                camera.submit(picture(value))
            for _ in range(capacity[burst % len(capacity)]):
                gate.let_one_batch_pass()
                gate.wait_until_running()
        served = Counter(value for (value,) in gate.batches)
        gate.open()
        assert max(served.values()) - min(served.values()) <= 1, served


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [(255, ImageError, "a bad picture"), (254, StreamError, "ZeroDivisionError"), (253, StreamError, "SystemExit")],
)
def test_a_failing_frame_fails_alone(gate, bad, error, message):
    with StreamWorker(gate) as worker:
        worker.open().submit(picture(0))
        gate.wait_until_running()
        futures = [worker.open().submit(picture(value)) for value in (1, bad, 2)]
        gate.open()
        good, failed, other = (get(future) for future in futures)
        assert (value_of(good), value_of(other)) == (1, 2)
        assert type(failed.result) is error
        with pytest.raises(error, match=message):
            failed.segmentation  # noqa: B018
        assert value_of(get(worker.open().submit(picture(3)))) == 3  # the worker lives on


def test_a_network_that_loses_a_picture_of_a_batch_is_an_error_and_no_hang():
    with StreamWorker(lambda images: []) as worker, worker.open() as source:
        assert type(get(source.submit(picture(1))).result) is StreamError


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whatever_ends_the_thread_nobody_waits_for_ever(gate):
    with StreamWorker(gate) as worker:
        worker.open().submit(picture(0))
        gate.wait_until_running()
        # Two arrays are neither equal nor different, so that it cannot say who shares a batch.
        futures = [worker.open().submit(picture(1), regions=np.zeros(3)) for _ in range(2)]
        gate.open()
        for future in [*futures, worker.open().submit(picture(2))]:
            assert type(get(future).result) is StreamError


def test_closing_a_source_answers_its_waiting_frame_and_lets_the_running_one_end(gate):
    with StreamWorker(gate) as worker:
        source, other = worker.open(), worker.open()
        running = source.submit(picture(1))
        gate.wait_until_running()
        waiting, others = source.submit(picture(2)), other.submit(picture(3))
        source.close()
        source.close()  # twice does no harm
        with pytest.raises(StreamError, match="closed"):
            get(waiting).segmentation  # noqa: B018
        assert type(get(source.submit(picture(4))).result) is StreamError
        gate.open()
        assert value_of(get(running)) == 1
        assert value_of(get(others)) == 3
        assert gate.batches == [[1], [3]]


def test_a_closed_source_and_an_answered_frame_are_forgotten():
    with StreamWorker(answer_with_value) as worker:
        source, image = worker.open(), picture(1)
        future = source.submit(image)
        get(future)
        source.close()
        remains = [weakref.ref(source), weakref.ref(image), weakref.ref(future)]
        del source, image, future
        deadline = time.monotonic() + TIMEOUT
        while any(ref() is not None for ref in remains) and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)
        assert [ref() for ref in remains] == [None, None, None]


def test_open_sources_are_counted_until_they_are_closed_or_let_go():
    with StreamWorker(answer_with_value) as worker:
        kept, closed, let_go = (worker.open() for _ in range(3))
        assert worker.sources == 3
        closed.close()
        closed.close()
        assert worker.sources == 2
        get(let_go.submit(picture(1)))
        del let_go
        deadline = time.monotonic() + TIMEOUT
        while worker.sources > 1 and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)
        assert worker.sources == 1
        assert value_of(get(kept.submit(picture(2)))) == 2


def test_closing_the_worker_mid_flight_answers_everyone_and_ends_its_thread(gate):
    worker = StreamWorker(gate)
    sources = [worker.open() for _ in range(3)]
    running = sources[0].submit(picture(1))
    gate.wait_until_running()
    waiting = [source.submit(picture(2)) for source in sources]
    closer = threading.Thread(target=worker.close)
    closer.start()
    for future in waiting:  # told at once, before the running batch ends
        assert type(get(future).result) is StreamError
    gate.open()
    closer.join(TIMEOUT)
    assert not closer.is_alive()
    assert not worker._thread.is_alive()
    assert value_of(get(running)) == 1
    for source in (sources[0], worker.open()):
        assert type(get(source.submit(picture(3))).result) is StreamError
    worker.close()


def test_a_frame_that_its_caller_gave_up_is_never_run(gate):
    with StreamWorker(gate) as worker, worker.open() as source, worker.open() as other:
        source.submit(picture(1))
        gate.wait_until_running()
        given_up, wanted = source.submit(picture(2)), other.submit(picture(3))
        assert given_up.cancel()
        gate.open()
        assert value_of(get(wanted)) == 3
        assert gate.batches == [[1], [3]]


def test_a_callback_may_submit_and_close():
    values, done = [], threading.Event()
    with StreamWorker(answer_with_value) as worker:
        source = worker.open()

        def publish(future: Future[Answer]) -> None:
            values.append(value_of(future.result()))
            if len(values) < 5:
                source.submit(picture(len(values))).add_done_callback(publish)
            else:
                source.close()
                worker.close()
                done.set()

        source.submit(picture(0)).add_done_callback(publish)
        assert done.wait(TIMEOUT)
    assert values == [0, 1, 2, 3, 4]


def test_a_coroutine_can_wait_for_answers():
    async def watch(source: Source) -> list[int]:
        return [value_of(await asyncio.wrap_future(source.submit(picture(value)))) for value in range(5)]

    async def watch_two(worker: StreamWorker) -> list[list[int]]:
        return await asyncio.gather(watch(worker.open()), watch(worker.open()))

    with StreamWorker(answer_with_value) as worker:
        assert asyncio.run(watch_two(worker)) == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(0, 4)),
        st.tuples(st.just("close"), st.integers(0, 4)),
        st.tuples(st.just("pass"), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, max_batch=st.integers(1, 4), close_worker=st.booleans())
def test_any_history_is_answered_as_the_model_says(steps, max_batch, close_worker):
    """Order, no loss of the newest, fairness and shutdown: every batch and answer is known from the history alone."""
    gate = Gate()
    worker = StreamWorker(gate, max_batch)
    sources = [worker.open() for _ in range(5)]
    futures: list[Future[Answer]] = []
    expected: list[str] = []  # of each frame, by the value that it holds
    running: list[int] = []
    waiting: dict[int, int] = {}  # source -> frame
    turns = list(range(5))  # sources, next one first
    closed: set[int] = set()
    batches: list[list[int]] = []

    def start_next() -> None:
        if not running and waiting:
            for source in [source for source in turns if source in waiting][:max_batch]:
                running.append(waiting.pop(source))
                turns.remove(source)
                turns.append(source)
            batches.append(running.copy())
            gate.wait_until_running()

    for step, source in steps:
        if step == "submit":
            frame = len(futures)
            futures.append(sources[source].submit(picture(frame)))
            if source in closed:
                expected.append("closed")
            else:
                expected.append("waiting")
                if source in waiting:
                    expected[waiting[source]] = "dropped"
                waiting[source] = frame
        elif step == "close":
            sources[source].close()
            closed.add(source)
            if source in waiting:
                expected[waiting.pop(source)] = "closed"
            assert worker.sources == 5 - len(closed)
        elif running:
            for frame in running:
                expected[frame] = "segmented"
            running.clear()
            gate.let_one_batch_pass()
        start_next()

    if close_worker:
        closer = threading.Thread(target=worker.close)
        closer.start()
        for frame in waiting.values():
            expected[frame] = "closed"
            get(futures[frame])  # told while the batch still runs
        waiting.clear()
    while running:
        for frame in running:
            expected[frame] = "segmented"
        running.clear()
        gate.let_one_batch_pass()
        start_next()
    if close_worker:
        closer.join(TIMEOUT)
    worker.close()

    kinds = {Segmentation: "segmented", FrameDroppedError: "dropped", StreamError: "closed"}
    answers = [get(future) for future in futures]
    assert [kinds[type(answer.result)] for answer in answers] == expected
    assert [value_of(a) for a in answers if isinstance(a.result, Segmentation)] == [
        frame for frame, kind in enumerate(expected) if kind == "segmented"
    ]
    assert gate.batches == batches


@settings(max_examples=15, deadline=None)
@given(
    pauses=st.lists(st.sampled_from([0.0, 0.0005, 0.002]), min_size=2, max_size=5),
    batch_seconds=st.sampled_from([0.0, 0.001, 0.004]),
    max_batch=st.integers(1, 3),
)
def test_sources_that_race_lose_nothing_but_old_frames(pauses, batch_seconds, max_batch):
    def predict(images: list[np.ndarray]) -> list[Segmentation]:
        time.sleep(batch_seconds)
        return answer_with_value(images)

    def play(source: Source, pause: float, arrived: list[Answer], futures: list[Future[Answer]]) -> None:
        for value in range(40):
            future = source.submit(picture(value))
            future.add_done_callback(lambda future: arrived.append(future.result()))
            futures.append(future)
            time.sleep(pause)

    with StreamWorker(predict, max_batch) as worker:
        sources = [worker.open() for _ in pauses]
        arrived: list[list[Answer]] = [[] for _ in pauses]
        futures: list[list[Future[Answer]]] = [[] for _ in pauses]
        threads = [
            threading.Thread(target=play, args=row) for row in zip(sources, pauses, arrived, futures, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        for row in futures:
            assert value_of(get(row[-1])) == 39, "the newest frame is never lost"
    for source, answers in zip(sources, arrived, strict=True):
        assert sorted(answer.sequence for answer in answers) == list(range(40)), "each frame is answered once"
        shown = [answer for answer in answers if isinstance(answer.result, Segmentation)]
        assert [value_of(answer) for answer in shown] == sorted(value_of(answer) for answer in shown)
        assert all(value_of(answer) == answer.sequence for answer in shown)
        assert all(answer.age >= 0 for answer in answers)
        assert source.dropped == 40 - len(shown)


def test_viewers_are_served_alike_beside_one_that_floods():
    """Seven tabs that ask again as soon as they are answered, one that floods; three frames fit a batch."""
    served: Counter[int] = Counter()
    stop = threading.Event()

    def predict(images: list[np.ndarray]) -> list[Segmentation]:
        served.update(int(image[0, 0, 0]) for image in images)
        time.sleep(0.004)
        return answer_with_value(images)

    def polite(source: Source, value: int) -> None:
        while not stop.is_set():
            get(source.submit(picture(value)))

    def flooding(source: Source, value: int) -> None:
        while not stop.is_set():
            source.submit(picture(value))
            time.sleep(0.0002)

    with StreamWorker(predict, max_batch=3) as worker:
        threads = [
            threading.Thread(target=flooding if value == 0 else polite, args=(worker.open(), value))
            for value in range(8)
        ]
        for thread in threads:
            thread.start()
        time.sleep(1.5)
        stop.set()
        for thread in threads:
            thread.join(TIMEOUT)
    flood, *others = (served[value] for value in range(8))
    assert max(others) <= 1.5 * min(others)
    assert 0 < flood <= 3 * min(others)  # it always has a frame waiting, and still no more than its turns
