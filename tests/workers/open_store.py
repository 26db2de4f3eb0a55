"""Open a store by its URL and print which one it is: `open_store.py URL`."""

from __future__ import annotations

import asyncio
import sys

import promptab


async def main(url: str) -> None:
    async with promptab.open(url, timeout=90) as lab:
        print(lab.store.store_id)


asyncio.run(main(sys.argv[1]))
