from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ecmnet_app.core import Segmenter
from ecmnet_app.core import pool as pool_module
from ecmnet_app.core.pool import SegmenterPool
from ecmnet_app.core.stream import StreamWorker
from ecmnet_app.errors import ConfigError, DeviceError, WeightsError

MakePicture = Callable[..., NDArray[np.uint8]]


@pytest.fixture
def two_weights(tiny_weights: Path, city_weights: Path) -> list[Path]:
    return [tiny_weights, city_weights]


def test_each_answers_as_its_own_segmenter_and_the_first_by_default(
    two_weights: list[Path], make_picture: MakePicture
) -> None:
    pool = SegmenterPool(two_weights, "cpu")
    assert list(pool.weights) == ["tiny", "city"]
    picture = make_picture(96, 128)
    for name, path in ((None, two_weights[0]), ("tiny", two_weights[0]), ("city", two_weights[1])):
        (answer,) = pool.predict_batch([picture], weights=name, resolution=64)
        expected = Segmenter.from_pretrained(path, "cpu").predict(picture, resolution=64)
        np.testing.assert_array_equal(answer.labels, expected.labels)
        assert answer.label_set == expected.label_set


def test_a_network_is_made_once_and_on_first_use(two_weights: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make = pool_module.open_engine

    def counting(name, weights, device):
        made.append(weights.name)
        return make(name, weights, device)

    monkeypatch.setattr(pool_module, "open_engine", counting)
    pool = SegmenterPool(two_weights, "cpu")
    assert made == ["tiny"]
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(pool.get, ["city", "tiny", None] * 8))
    assert sorted(made) == ["city", "tiny"]
    assert len(found) == 2


def test_one_worker_serves_all_of_them(two_weights: list[Path], make_picture: MakePicture) -> None:
    pool = SegmenterPool(two_weights, "cpu")
    picture = make_picture(64, 96)
    with StreamWorker(pool.predict_batch) as worker, worker.open() as a, worker.open() as b, worker.open() as c:
        futures = [a.submit(picture, weights="city"), b.submit(picture), c.submit(picture, weights="nowhere")]
        answers = [future.result() for future in futures]
    assert [len(answer.segmentation.label_set) for answer in answers[:2]] == [19, 11]
    with pytest.raises(ConfigError, match="no weights 'nowhere' here; choose from tiny, city"):
        _ = answers[2].segmentation


def test_what_cannot_be_is_said_at_once(two_weights: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two of the weights are called 'tiny'"):
        SegmenterPool([two_weights[0], two_weights[0]], "cpu")
    with pytest.raises(WeightsError, match="no weights 'nowhere'"):
        SegmenterPool([two_weights[0], "nowhere"], "cpu")
    with pytest.raises(DeviceError, match="no device"):
        SegmenterPool(two_weights, "cuda:77")
    with pytest.raises(DeviceError, match="no engine"):
        SegmenterPool(two_weights, "cpu", "steam")
