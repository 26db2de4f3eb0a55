"""Whose a run in the shadow is, kept where nothing that adds up what was served can meet it."""

from __future__ import annotations

from typing import Any, NamedTuple

SHADOW_KEY = "shadow"
"""Under this key of its metadata an event of the kind "shadow" has the fields of its `ShadowPlace`."""


class ShadowPlace(NamedTuple):
    """Whose a run is. The event has none of it in the fields that say so of what was served."""

    experiment_id: str
    variant: str
    """Key of the shadow."""
    unit: str
    version_id: str | None = None
    feedback_on: str | None = None
    """The event of the run that this is said of; None for a run."""
    beside: str | None = None
    """The event of the served call that it is to be compared with; None where nobody said which."""

    def metadata(self) -> dict[str, Any]:
        """Return what the event carries of it."""
        return {SHADOW_KEY: {name: value for name, value in self._asdict().items() if value is not None}}
