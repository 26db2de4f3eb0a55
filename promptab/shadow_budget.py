"""The limit of what runs in the shadow may cost: what one may cost is set aside before it is sent."""

from __future__ import annotations

_ROUNDING = 1e-12
"""US dollars."""


class ShadowBudget:
    """US dollars, of which each run sets aside what the dearest run of its shadow has cost so far.

    Nothing is known of a shadow before its first answer: until then one run of it is out at a time. So the limit is
    exceeded by no more than the first run of each shadow, and by what runs that are out cost beyond the dearest one
    before them.
    """

    def __init__(self, dollars: float | None) -> None:
        """None is no limit."""
        self._dollars = dollars
        self.spent = 0.0
        self._aside = 0.0
        self._dearest: dict[object, float] = {}
        """Shadow -> the most that a run of it has cost."""
        self._first: set[object] = set()
        """Shadows of which nothing is known, and a run is out."""

    def share_of(self, shadow: object) -> float | None:
        """Return what a run of the shadow has to set aside; None where there is not as much."""
        share = self._dearest.get(shadow, 0.0)
        if self._dollars is None:
            return share
        taken = self.spent + self._aside
        if shadow in self._first or taken >= self._dollars or taken + share > self._dollars + _ROUNDING:
            return None
        return share

    def set_aside(self, shadow: object, share: float) -> None:
        self._aside += share
        if shadow not in self._dearest:
            self._first.add(shadow)

    def spend(self, shadow: object, aside: float, dollars: float | None, *, answered: bool) -> None:
        """Give back what was set aside, but for what it cost: nothing, as far as is known, where that is not known."""
        self._aside -= aside
        self.spent += dollars or 0.0
        self._first.discard(shadow)
        # where an answer has no price, the next one has none either
        if answered or dollars is not None:
            self._dearest[shadow] = max(self._dearest.get(shadow, 0.0), dollars or 0.0)

    def forget_what_is_out(self) -> None:
        """Give back what runs have set aside that are none of this process."""
        self._aside = 0.0
        self._first.clear()
