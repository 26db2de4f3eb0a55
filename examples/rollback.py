"""Take a bad version out of production. For the person on call; safe to run twice.

    python examples/rollback.py system/support_reply 1.2.0 --reason "replies in the wrong language"

Production goes back to what was live before, but only while the bad version is what is live: a second run, or a
colleague who was faster, changes nothing. Exit code 0: the bad version is not live. 1: it still is; the error says
why. The store is the one that PROMPTAB_URL names, unless --url does.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys

import promptab
from promptab import PromptabError


async def roll_back(prompt: str, bad_version: str, *, environment: str, reason: str, url: str | None) -> str:
    """Return what was done, as a sentence."""
    prompt_type, _, name = prompt.partition("/")
    async with promptab.open(url) as lab:
        bad = await lab.versions.get_version(name, prompt_type, bad_version)
        if bad is None or bad.version != bad_version:
            # a tag or a range could mean another version the second time
            remedy = "give its exact number, as `promptab log` shows it"
            raise promptab.NotFoundError("version", f"{prompt}@{bad_version}", remedy)
        move = await lab.versions.rollback(
            name,
            prompt_type,
            environment,
            reason=reason,
            expected=bad.version,
            actor=getpass.getuser(),
        )
        if move is not None:
            return f"{environment} of {prompt}: {bad.version} -> {move.version}"
        live = await lab.versions.get_version(name, prompt_type, environment)
        shown = "nothing" if live is None else live.version
        return f"{environment} of {prompt} is {shown}, not {bad.version}: nothing was changed"


def main() -> int:
    parser = argparse.ArgumentParser(description="Take a bad version out of production; safe to run twice.")
    parser.add_argument("prompt", metavar="TYPE/NAME", help="the prompt, such as system/support_reply")
    parser.add_argument(
        "bad_version", metavar="BAD_VERSION", help="the version that must not stay, such as 1.2.0"
    )
    parser.add_argument("--reason", required=True, help="why; it goes into the deployment history")
    parser.add_argument("--environment", default="production", choices=["production", "staging"])
    parser.add_argument("--url", help="the store (default: PROMPTAB_URL, else sqlite:///promptab.db)")
    arguments = parser.parse_args()
    try:
        done = asyncio.run(
            roll_back(
                arguments.prompt,
                arguments.bad_version,
                environment=arguments.environment,
                reason=arguments.reason,
                url=arguments.url,
            )
        )
    except PromptabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(done)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
