"""Record, awaited and not, and end in one of the ways in which programs end: `ending.py URL HOW`.

Prints `awaited EVENT_ID` after `record_event` has returned and `queued EVENT_ID` after `record_nowait` has; then
`ready`, and ends by itself or waits for a signal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid

import promptab
from promptab import Lab

VERSION_ID = "11111111-1111-4111-8111-111111111111"
AWAITED = 20
QUEUED = 1_000


async def record(lab: Lab) -> None:
    for _ in range(AWAITED):
        event = await lab.metrics.record_event(VERSION_ID, True)
        print("awaited", event.event_id)
    for _ in range(QUEUED):
        event_id = str(uuid.uuid4())
        assert lab.metrics.record_nowait(VERSION_ID, True, event_id=event_id)
        print("queued", event_id)
    print("ready", flush=True)


async def closing(url: str) -> None:
    async with promptab.open(url) as lab:
        await record(lab)


async def forgetting(url: str) -> None:
    await record(await promptab.open(url))


async def leaving(url: str) -> None:
    async with promptab.open(url) as lab:
        await record(lab)
        sys.exit(3)


async def leaving_without_closing(url: str) -> None:
    await record(await promptab.open(url))
    sys.exit(3)


async def failing(url: str) -> None:
    async with promptab.open(url) as lab:
        await record(lab)
        raise RuntimeError("as it happens")


async def waiting(url: str) -> None:
    async with promptab.open(url) as lab:
        await record(lab)
        await asyncio.sleep(600)


async def served(url: str) -> None:
    """As a server that a supervisor stops."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with promptab.open(url) as lab:
        await record(lab)
        await stopped.wait()


def in_a_loop_that_is_left(url: str) -> None:
    """Run a loop that never closes its generators, and do not close the store either."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(forgetting(url))
    loop.close()


def killed_in_the_middle(url: str) -> None:
    async def main() -> None:
        lab = await promptab.open(url)
        await record(lab)
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main())


COROUTINES = {
    work.__name__: work
    for work in (closing, forgetting, leaving, leaving_without_closing, failing, waiting, served)
}

if __name__ == "__main__":
    # a shell starts what it runs in the background with this one ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    url, how = sys.argv[1:]
    if how in COROUTINES:
        asyncio.run(COROUTINES[how](url))
    else:
        {work.__name__: work for work in (in_a_loop_that_is_left, killed_in_the_middle)}[how](url)
