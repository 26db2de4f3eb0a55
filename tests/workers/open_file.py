"""Open a database file and say what is possible: `open_file.py PATH [id | as-nobody]`.

With `id` only which store it is; with `as-nobody` as a user whom permissions hold back.
"""

from __future__ import annotations

import asyncio
import os
import sys

import promptab
from promptab import PromptabError

NOBODY = 65534


async def main(path: str, wish: str) -> None:
    if wish == "as-nobody":
        await become_nobody()
    try:
        lab = await promptab.open(f"sqlite:///{path}")
    except PromptabError as error:
        print(f"{type(error).__name__}: {error}")
        return
    if wish == "id":
        print(lab.store.store_id)
        await lab.close()
        return
    print("opened")
    print(f"read {len(await lab.versions.list_versions())}")
    for attempt in (
        lab.versions.create_version("tone", "system", "Be kind."),
        lab.metrics.record_event(None, success=True),
    ):
        try:
            await attempt
            print("written")
        except PromptabError as error:
            print(f"{type(error).__name__}: {error}")
    await lab.close()


async def become_nobody() -> None:
    """Import all that an open store needs, which root's folders may hide from others, and give up root's rights."""
    async with promptab.open("sqlite:///:memory:") as lab:
        version = await lab.versions.create_version("tone", "system", "Be kind.")
        await lab.metrics.record_event(version.version_id, success=True)
    if os.geteuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)


asyncio.run(main(sys.argv[1], "".join(sys.argv[2:])))
