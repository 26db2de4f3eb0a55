"""Record events until somebody kills the process: `recording.py URL RUN`.

Prints `RUN NUMBER EVENT_ID` of an event after `record_event` has returned, and never before.
"""

from __future__ import annotations

import asyncio
import itertools
import sys

import promptab

CALLERS = 32
VERSION_ID = "11111111-1111-4111-8111-111111111111"


async def main(url: str, run: str) -> None:
    numbers = itertools.count()
    async with promptab.open(url) as lab:

        async def caller() -> None:
            for number in numbers:
                told = {"run": run, "number": number}
                event = await lab.metrics.record_event(
                    VERSION_ID, success=True, cost=number / 8, metadata=told
                )
                print(run, number, event.event_id, flush=True)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))


asyncio.run(main(sys.argv[1], sys.argv[2]))
