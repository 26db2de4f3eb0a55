"""Deliver alerts to a webhook until somebody kills the process: `delivering.py URL HOOK`."""

from __future__ import annotations

import asyncio
import sys

import promptab
from promptab import AlertSettings, Webhook


async def main(url: str, hook: str) -> None:
    async with promptab.open(url) as lab:
        webhook = Webhook(name="oncall", url=hook, format="slack", allowed_hosts=("127.0.0.1",))
        lab.alerts.declare(AlertSettings(log=None, webhooks=(webhook,)))
        print("ready", flush=True)
        await lab.alerts.keep_delivering(0.05)


asyncio.run(main(sys.argv[1], sys.argv[2]))
