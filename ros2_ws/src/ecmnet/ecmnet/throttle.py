"""Which lines the log need not have again."""

from __future__ import annotations

import re

__all__ = ["Throttle"]


class Throttle:
    """One camera's lines of late, from any thread.

    rclpy goes by the line of code: of several cameras' troubles, or of several of one camera, it logs the first alone.
    """

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def passes(self, text: str, now: float, quiet: float) -> bool:
        """Whether to log a line: none like it, but for its numbers, has passed of late.

        Args:
            text: the line.
            now: seconds on the monotonic clock.
            quiet: seconds for which the next ones like it do not pass.
        """
        kind = re.sub(r"\d+", "0", text)
        waiting = {line: until for line, until in self._until.items() if until > now}
        if kind in waiting:
            return False
        self._until = {**waiting, kind: now + quiet}  # a new one, for another thread may be reading it
        return True
