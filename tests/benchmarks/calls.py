"""What `lab.complete` adds to a call of the bare client: `python -m tests.benchmarks.calls`.

Both ask the same server on loopback, one after the other in turn, so that whatever else the machine does is in both.
The server runs in a process of its own. `more` is what a caller waits longer, `more cpu` what of it is work of the
event loop's thread: the two differ by what else the machine does. The event is written afterwards, in the last column.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import openai

import promptab
from tests.llm_server import LlmServer, running

ROUNDS = 1_000
TARGET_MS = 0.3


def serve(address: Any) -> None:
    async def main() -> None:
        async with running(LlmServer()) as server:
            address.send(server.url)
            await asyncio.Event().wait()

    asyncio.run(main())


class Took(NamedTuple):
    """Milliseconds."""

    wall: float
    cpu: float


async def timed(ask: Callable[[], Awaitable[Any]]) -> Took:
    started, worked = time.perf_counter(), time.thread_time()
    await ask()
    return Took((time.perf_counter() - started) * 1e3, (time.thread_time() - worked) * 1e3)


def median_more(without: list[Took], with_us: list[Took], part: str) -> float:
    """Return the median over pairs: what disturbs one of a pair disturbs the other too."""
    pairs = zip(without, with_us, strict=True)
    return statistics.median(float(getattr(ours, part) - getattr(bare, part)) for bare, ours in pairs)


async def measure(lab: promptab.Lab, client: Any, api: str, model: str, rounds: int) -> None:
    choice = await lab.choose("support_reply", user_id="u")
    content = choice.render(customer="Ada")

    async def bare() -> Any:
        turn: dict[str, str] = {"role": "user" if api == "messages" else "system", "content": content}
        match api:
            case "chat":
                return await client.chat.completions.create(model=model, messages=[turn], max_tokens=50)
            case "responses":
                return await client.responses.create(model=model, input=[turn], max_output_tokens=50)
            case _:
                return await client.messages.create(model=model, messages=[turn], max_tokens=50)

    async def ours() -> Any:
        return await lab.complete(
            "support_reply",
            user_id="u",
            variables={"customer": "Ada"},
            client=client,
            api=api,
            model=model,
        )

    for _ in range(50):
        await bare()
        await ours()
    await lab.calls.flush()
    gc.collect()
    without, with_us, after = [], [], []
    for _ in range(rounds):
        without.append(await timed(bare))
        with_us.append(await timed(ours))
        # written before the next round, so that no round pays for the one before it
        after.append(await timed(lab.calls.flush))
    numbers = [
        statistics.median(took.wall for took in without),
        statistics.median(took.wall for took in with_us),
        median_more(without, with_us, "wall"),
        statistics.median(took.cpu for took in without),
        median_more(without, with_us, "cpu"),
        statistics.median(took.wall for took in after),
    ]
    print(f"{api:10}" + "".join(f"{number:10.3f}" for number in numbers))


async def main(rounds: int, url: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = LlmServer(url=url)
        async with (
            promptab.open(f"sqlite:///{Path(folder) / 'calls.db'}") as lab,
            openai.AsyncOpenAI(**server.openai) as one,
            anthropic.AsyncAnthropic(**server.anthropic) as other,
        ):
            config = {"model": "gpt-4.1-mini", "parameters": {"max_tokens": 50}}
            created = await lab.versions.create_version(
                "support_reply", "system", "Help {{ customer }}.", config=config
            )
            await lab.versions.promote(created.version_id)
            print(
                f"medians of {rounds} calls in milliseconds; target: under {TARGET_MS} more than the bare client"
            )
            print("api             bare  complete      more  bare cpu  more cpu   written")
            await measure(lab, one, "chat", "gpt-4.1-mini", rounds)
            await measure(lab, one, "responses", "gpt-4.1-mini", rounds)
            await measure(lab, other, "messages", "claude-haiku-4-5", rounds)


if __name__ == "__main__":
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=serve, args=(sending,), daemon=True)
    process.start()
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS, receiving.recv()))
    process.terminate()
