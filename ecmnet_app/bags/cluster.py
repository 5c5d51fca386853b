"""Workers of a Ray cluster that is there already. Which of them does what, and again where one is lost, is Ray's."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from ecmnet_app.bags.workers import Network, Tell
from ecmnet_app.errors import ConfigError

try:
    import ray
    from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RaySystemError, WorkerCrashedError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as error:  # an extra
    raise ConfigError("--ray needs Ray, which is not installed; pip install 'ray>=2.40'") from error

__all__ = ["RayWorkers"]

T = TypeVar("T")

TIMEOUT = 10
"""Seconds that the head may take to answer."""
RETRIES = 10
"""Times that Ray makes a call again whose worker or machine was lost."""
ALL_GPUS_SEEN = {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}
"""A worker is kept, with its network, when Ray gives it another GPU; what CUDA sees is fixed when it starts."""


class RayWorkers:
    """See `Workers`. Where the cluster has GPUs each call gets one, otherwise as many cores as it has threads.

    Every machine must have this package in the same version, and see the bags and the folder of the answers under the
    same paths.

    Args:
        address: "auto", or HOST:PORT of the cluster's head, from one of its machines.
        device: "auto", "cpu" or "cuda".
        threads: of a call on the CPU.

    Raises:
        ConfigError: there is no such device; on entering: no such cluster, or it has not what a call needs.
    """

    lost: tuple[type[Exception], ...] = (WorkerCrashedError, NodeDiedError, OutOfMemoryError, ObjectLostError)
    tries = 1  # Ray has made it again already

    def __init__(self, address: str, device: str = "auto", threads: int = 1) -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"with --ray, --device is auto, cpu or cuda, not {device}: Ray chooses among the GPUs")
        self._address, self._threads = address, threads
        self._device = device
        self.count = 0

    def __enter__(self) -> RayWorkers:
        _connect(self._address)
        try:
            self._look_around()
        except BaseException:
            ray.shutdown()
            raise
        return self

    def _look_around(self) -> None:
        have = ray.cluster_resources()
        gpus = 0 if self._device == "cpu" else int(have.get("GPU", 0))
        if self._device == "cuda" and not gpus:
            raise ConfigError("the Ray cluster has no GPU; take --device cpu")
        self._device = "cuda" if gpus else "cpu"
        self.count = gpus or int(have.get("CPU", 0)) // self._threads
        if not self.count:
            raise ConfigError(f"the Ray cluster has not {self._threads} cores for one process; take fewer --threads")
        run = ray.remote(max_calls=0, max_retries=RETRIES)(_run)
        self._run = run.options(num_cpus=1 if gpus else self._threads, num_gpus=1 if gpus else 0)
        # On this machine, as it is of no use without it.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._tally = ray.remote(num_cpus=0, scheduling_strategy=here)(_Tally).remote()

    def fit(self, network: Network) -> Network:
        """See `Workers`: all on one kind of device, so that it makes no difference which worker does what."""
        return replace(network, device=self._device, threads=self._threads)

    def submit(self, call: Callable[..., T], *args: Any) -> Future[T]:
        """See `Workers`. What the call raises comes as it was raised, not as Ray's report of it."""
        result: Future[T] = Future()

        def pass_on(future: Future[T]) -> None:
            error = future.exception()
            if error is None:
                result.set_result(future.result())
            else:
                result.set_exception(_as_it_was_raised(error))

        self._run.remote(call, *args).future().add_done_callback(pass_on)
        return result

    def tell(self, number: int) -> Tell:
        """See `Workers`."""
        return partial(_tell, self._tally, number)

    def told(self, number: int) -> int:
        """See `Workers`."""
        return ray.get(self._tally.told.remote(number))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray.shutdown()


def _connect(address: str) -> None:
    problem = "start one with `ray start --head`, and give --ray auto on one of its machines, or HOST:PORT of its head"
    host, colon, port = address.rpartition(":")
    try:
        if colon and port.isdigit() and "://" not in host:  # for Ray itself tries for minutes
            socket.create_connection((host, int(port)), TIMEOUT).close()
        ray.init(
            address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": ALL_GPUS_SEEN},
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"no Ray cluster answers at {address} ({str(error).splitlines()[0]}); {problem}") from error


def _as_it_was_raised(error: BaseException) -> BaseException:
    """Of what Ray reports."""
    if isinstance(error, RaySystemError):  # a call that a worker cannot unpickle
        reason = str(error).strip().splitlines()[-1]
        return ConfigError(
            f"a worker of the Ray cluster cannot take the work ({reason}); install ecmnet-app in the same version on "
            "every machine, for the Python that Ray runs in there"
        )
    return getattr(error, "cause", None) or error


class _Tally:
    """An actor that knows how far the calls are."""

    def __init__(self) -> None:
        self._told: dict[int, int] = {}

    def tell(self, number: int, done: int) -> None:
        self._told[number] = done

    def told(self, number: int) -> int:
        return self._told.get(number, 0)


def _tell(tally: Any, number: int, done: int) -> None:
    tally.tell.remote(number, done)


def _run(call: Callable[..., T], *args: Any) -> T:
    """In a worker."""
    gpus = ray.get_gpu_ids()
    if gpus:
        import torch

        torch.cuda.set_device(cuda_index(str(gpus[0]), os.environ.get("CUDA_VISIBLE_DEVICES")))
    return call(*args)


def cuda_index(gpu: str, visible: str | None) -> int:
    """Which of the GPUs that CUDA sees Ray means, whose ids are those that its part on the machine was started with.

    Args:
        gpu: by Ray.
        visible: CUDA_VISIBLE_DEVICES.
    """
    return visible.split(",").index(gpu) if visible else int(gpu)
