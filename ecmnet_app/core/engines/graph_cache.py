"""Which picture sizes have a graph: those that come back, the most recently used first, a bounded number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["GraphCache"]

Key = TypeVar("Key", bound=Hashable)
Graph = TypeVar("Graph")


class GraphCache(Generic[Key, Graph]):
    """Makes a graph for a key that is asked for again, and lets go of the one that was not used for longest.

    Args:
        make: captures a graph; what it raises goes through, and nothing is kept.
        free: called after graphs were let go.
        most: graphs kept at a time.
    """

    SEEN = 64
    """Keys remembered that were asked for once."""

    def __init__(self, make: Callable[[Key], Graph], free: Callable[[], None], most: int) -> None:
        self._make, self._free, self._most = make, free, most
        self._graphs: OrderedDict[Key, Graph] = OrderedDict()
        self._seen: OrderedDict[Key, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._graphs)

    def get(self, key: Key) -> Graph | None:
        """The key's graph; None where it is asked for the first time, or for the first time in long."""
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._graphs[key]
        if key not in self._seen:
            self._seen[key] = None
            if len(self._seen) > self.SEEN:
                self._seen.popitem(last=False)
            return None
        if len(self._graphs) >= self._most:
            self._graphs.popitem(last=False)
            self._free()
        graph = self._graphs[key] = self._make(key)
        del self._seen[key]
        return graph

    def clear(self) -> None:
        """Let go of all graphs."""
        self._graphs.clear()
        self._free()
