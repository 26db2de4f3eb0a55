"""Plan a push of a folder, wait for a line of input, then push: `push_files.py URL FOLDER`. Prints what was made."""

from __future__ import annotations

import asyncio
import sys

import promptab
from promptab import FileSystemPromptLibrary
from promptab.sync import plan_sync, push


async def main(url: str, folder: str) -> None:
    library = FileSystemPromptLibrary(folder)
    async with promptab.open(url) as lab:
        plan = await plan_sync(lab, library)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        report = await push(lab, library, plan)
    for outcome in report.outcomes:
        print(f"{outcome.label} {outcome.version} {outcome.done}")


asyncio.run(main(*sys.argv[1:]))
