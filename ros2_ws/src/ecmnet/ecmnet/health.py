"""What becomes of each camera's pictures, counted and put into words for /diagnostics."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

__all__ = ["ERROR", "OK", "WARN", "Health", "Report"]

OK, WARN, ERROR = 0, 1, 2
"""Levels of diagnostic_msgs/DiagnosticStatus."""
SILENCE = 4.0
"""Seconds without a picture after which it is said: within 5 s with a look every second."""


@dataclass(frozen=True)
class Report:
    """One camera's line in /diagnostics."""

    level: int
    message: str
    values: dict[str, str]


class Health:
    """Counts of one camera, from any thread. Times are seconds on the monotonic clock.

    Args:
        now: the time at which the camera was subscribed to.
    """

    def __init__(self, now: float) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self.renew(now)
        self._last_masks = 0
        self._last_bad = 0
        self._last_unstamped = 0
        self._error = ""
        self._age: float | None = None
        self._latency: float | None = None

    def renew(self, now: float) -> None:
        """Pictures count from now on: while they did not, there was neither silence nor a rate."""
        with self._lock:
            self._last_picture = self._last_report = now

    def picture(self, now: float) -> None:
        """A message came."""
        with self._lock:
            self._counts["pictures"] += 1
            self._last_picture = now

    def unstamped(self) -> None:
        """Its stamp is zero."""
        with self._lock:
            self._counts["unstamped"] += 1

    def bad(self, error: str) -> None:
        """It could not be segmented."""
        with self._lock:
            self._counts["bad"] += 1
            self._error = error

    def dropped(self) -> None:
        """A newer one took its place."""
        with self._lock:
            self._counts["dropped"] += 1

    def mask(self, age: float, latency: float | None) -> None:
        """Its mask went out `age` seconds after it came, `latency` seconds after its stamp."""
        with self._lock:
            self._counts["masks"] += 1
            self._age, self._latency = age, latency

    def silent(self, now: float) -> bool:
        """Whether no picture has come for so long that people should be told."""
        with self._lock:
            return now - self._last_picture >= SILENCE

    def report(self, now: float, problem: str = "") -> Report:
        """What to say now; counts are since the camera was subscribed to, the rate since the last report.

        Args:
            problem: why no pictures come, where that is known.
        """
        with self._lock:
            masks, bad, unstamped = (self._counts[name] for name in ("masks", "bad", "unstamped"))
            rate = (masks - self._last_masks) / max(now - self._last_report, 1e-3)
            new_bad, new_unstamped = bad - self._last_bad, unstamped - self._last_unstamped
            self._last_report = now
            self._last_masks, self._last_bad, self._last_unstamped = masks, bad, unstamped
            values = {name: str(self._counts[name]) for name in ("pictures", "masks", "dropped", "bad", "unstamped")}
            values["masks per second"] = f"{rate:.1f}"
            values["age [ms]"] = _milliseconds(self._age)
            values["latency [ms]"] = _milliseconds(self._latency)
            values["last error"] = self._error or "none"
        if problem:
            return Report(ERROR, problem, values)
        if new_bad:
            return Report(WARN, f"{new_bad} bad pictures since the last report: {values['last error']}", values)
        if new_unstamped:
            return Report(WARN, "pictures without a stamp; let the camera's driver fill in header.stamp", values)
        return Report(OK, f"{rate:.1f} masks per second", values)


def _milliseconds(seconds: float | None) -> str:
    return "none yet" if seconds is None else f"{seconds * 1000:.0f}"
