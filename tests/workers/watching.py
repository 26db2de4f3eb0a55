"""Choose again and again, and say when which version was served for the first time: `watching.py URL PAUSE LAST`.

Prints `ready`; then, for each version that is new to it, the version and the moment by the machine's monotonic clock.
Ends when it has been served the version LAST. A PAUSE below zero never lets the event loop have a turn of its own.
"""

from __future__ import annotations

import asyncio
import sys
import time

import promptab


async def main(url: str, pause: float, last: str) -> None:
    async with promptab.open(url) as lab:
        await lab.choose("tone", environment="production")
        print("ready", flush=True)
        seen = ""
        while seen != last:
            choice = await lab.choose("tone", environment="production")
            number = choice.render()
            if number != seen:
                print(number, time.monotonic(), flush=True)
                seen = number
            if pause >= 0:
                await asyncio.sleep(pause)


asyncio.run(main(sys.argv[1], float(sys.argv[2]), sys.argv[3]))
