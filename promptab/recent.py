"""What was used lately: a memory with a bound, for answers that can be worked out again."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Remembers at least the `capacity` keys that were used last, and never more than twice as many.

    Two generations: what is found in the older one moves to the newer, and when the newer is full it becomes the
    older. So a look-up is one of a dict, where an exact order of use would cost several.
    """

    __slots__ = ("_capacity", "_older", "newer")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._older: dict[K, V] = {}
        self.newer: dict[K, V] = {}
        """For the hottest callers, who look here before they call `get`."""

    def get(self, key: K) -> V | None:
        found = self.newer.get(key)
        if found is None and (found := self._older.get(key)) is not None:
            self.put(key, found)
        return found

    def put(self, key: K, value: V) -> None:
        """Remember a value other than None."""
        if len(self.newer) >= self._capacity:
            self._older, self.newer = self.newer, {}
        self.newer[key] = value

    def add(self, key: K, value: V) -> bool:
        """Remember a value unless the key has one; return whether it had none."""
        if key in self.newer:
            return False
        if len(self.newer) >= self._capacity:
            self._older, self.newer = self.newer, {}
        # what the older generation knows is moved up, as by any use
        self.newer[key] = self._older.get(key, value)
        return key not in self._older

    def clear(self) -> None:
        self._older, self.newer = {}, {}

    def __len__(self) -> int:
        """Return how many keys are remembered; one that is in both generations counts twice."""
        return len(self._older) + len(self.newer)
