"""Watch a store as `promptab watch` does: `watching_leader.py URL INTERVAL PAUSE`.

Prints a line for every update, as JSON, and `{"inside": true}` inside the transaction that applies a decision, before
the first change and PAUSE seconds before it goes on.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import aclosing

import promptab
from promptab import watching
from promptab.stores.base import Transaction

_check = watching.Round.check_leading


def told(document: object) -> None:
    print(json.dumps(document), flush=True)


async def main(url: str, interval: float, pause: float) -> None:
    async def checked(looks: watching.Round, tx: Transaction) -> None:
        await _check(looks, tx)
        told({"inside": True})
        await asyncio.sleep(pause)

    watching.Round.check_leading = checked  # type: ignore[method-assign, assignment]
    async with (
        promptab.open(url, timeout=60.0) as lab,
        aclosing(lab.watch(interval=interval)) as updates,
    ):
        async for update in updates:
            told(
                {
                    "state": update.state,
                    "subject": update.subject,
                    "applied": update.applied,
                    "error": update.error,
                }
            )


asyncio.run(main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
