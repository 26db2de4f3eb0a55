"""Deliver alerts to a webhook until somebody kills the process: `delivering.py URL HOOK HOURS`.

Its clock is so many hours ahead, so that the leases of whoever was killed before it are over.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

import promptab
from promptab import AlertSettings, Webhook
from promptab.managed import utc_now


async def main(url: str, hook: str, hours: float) -> None:
    async with promptab.open(url, clock=lambda: utc_now() + timedelta(hours=hours)) as lab:
        webhook = Webhook(name="oncall", url=hook, format="slack", allowed_hosts=("127.0.0.1",))
        lab.alerts.declare(AlertSettings(log=None, webhooks=(webhook,)))
        await lab.alerts.keep_delivering(0.05)


asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
