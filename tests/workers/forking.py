"""Fork with a lab open, and record on both sides: `forking.py URL HOW COUNT`.

`inherited`: the child uses the lab of its parent; `opened`: it opens one of its own; `midway`: as `inherited`, while
the parent's callers wait for commits. Prints `SIDE EVENT_ID` after `record_event` has returned, and at the end
`SIDE done`. The parent closes its lab while the child is still recording.
"""

from __future__ import annotations

import asyncio
import os
import sys

import promptab
from promptab import Lab

VERSION_ID = "11111111-1111-4111-8111-111111111111"
CALLERS = 8


def say(line: str) -> None:
    # in one piece, as both sides write to the same pipe
    os.write(1, f"{line}\n".encode())


async def record(lab: Lab, side: str, count: int) -> None:
    async def caller(first: int) -> None:
        for number in range(first, count, CALLERS):
            event = await lab.metrics.record_event(VERSION_ID, True, cost=float(number))
            say(f"{side} {event.event_id}")

    await asyncio.gather(*map(caller, range(CALLERS)))


async def child(lab: Lab, url: str, how: str, count: int, parent_closed: int) -> None:
    if how == "opened":
        async with promptab.open(url) as own:
            await in_the_child(own, count, parent_closed)
    else:
        async with lab:
            await in_the_child(lab, count, parent_closed)


async def in_the_child(lab: Lab, count: int, parent_closed: int) -> None:
    await lab.versions.create_version("tone", "system", "Be kind.")
    await record(lab, "child", count)
    await asyncio.to_thread(os.read, parent_closed, 1)
    # the last user of the file now; what it writes must not go down with what the parent closed
    await record(lab, "child", count)
    assert (await lab.metrics.get_metrics(VERSION_ID)).total_events >= 2 * count


async def main(url: str, how: str, count: int) -> None:
    parent_closed, closing = os.pipe()
    lab = await promptab.open(url)
    await lab.versions.create_version("tone", "system", "Be kind.")
    await lab.choose("tone", user_id="ada")
    await record(lab, "parent", count)
    recording = asyncio.ensure_future(record(lab, "parent", count)) if how == "midway" else None
    for _ in range(5):
        await asyncio.sleep(0)
    process = os.fork()
    if process == 0:
        asyncio.run(child(lab, url, how, count, parent_closed))
        say("child done")
        os._exit(0)
    if recording is not None:
        await recording
    await record(lab, "parent", count)
    await lab.close()
    os.write(closing, b"x")
    _, status = await asyncio.to_thread(os.waitpid, process, 0)
    say(f"parent {'done' if status == 0 else status}")


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
