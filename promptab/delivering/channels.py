"""Channels: what takes an alert, and says whether it has it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from promptab.alerts.alert import Alert, Severity
from promptab.alerts.body import line_of
from promptab.alerts.channel import EVERYTHING, LOG, Wanted

logger = logging.getLogger("promptab.alerts")

CALLBACK_SECONDS = 30.0

AlertCallback = Callable[[Alert], Awaitable[object] | object]

_LEVELS: dict[Severity, int] = {
    "info": logging.INFO,
    "warning": logging.WARNING,
    "critical": logging.ERROR,
}


class Refused(NamedTuple):
    """Why an alert did not arrive, in words that hold no secret."""

    error: str
    for_good: bool = False
    """Whether to try it again is of no use."""
    again_in_seconds: float | None = None
    """As the other side asked."""


class Channel(Protocol):
    """Where alerts go. `send` returns None when the alert has arrived; it takes `seconds` at most and never raises."""

    @property
    def name(self) -> str: ...

    @property
    def wanted(self) -> Wanted: ...

    @property
    def seconds(self) -> float: ...

    async def send(self, alert: Alert) -> Refused | None: ...


class LogChannel:
    """Writes each alert in one line, by the logger `promptab.alerts`."""

    name = LOG
    seconds = 1.0

    def __init__(self, wanted: Wanted = EVERYTHING) -> None:
        self.wanted = wanted

    async def send(self, alert: Alert) -> Refused | None:
        logger.log(_LEVELS[alert.severity], "%s", line_of(alert))
        return None


class CallbackChannel:
    """Awaits a function of the program with each alert; it has 30 seconds."""

    seconds = CALLBACK_SECONDS

    def __init__(self, name: str, callback: AlertCallback, wanted: Wanted = EVERYTHING) -> None:
        self.name = name
        self.wanted = wanted
        self._callback = callback

    async def send(self, alert: Alert) -> Refused | None:
        try:
            async with asyncio.timeout(self.seconds):
                answer = self._callback(alert)
                if inspect.isawaitable(answer):
                    await answer
        except TimeoutError:
            return Refused(f"the callback took longer than {self.seconds:g} s, or a call in it did")
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            # a task that it waited for was: that must not end the task that delivers
            return Refused("the callback was cancelled")
        except Exception as error:  # noqa: BLE001 - anything: the callback is the program's own
            # its message may hold whatever the program was at
            return Refused(f"the callback raised {type(error).__name__}")
        return None


def _is_cancelled() -> bool:
    """Return whether somebody wants this very task to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
