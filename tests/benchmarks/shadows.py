"""What a shadow adds to the call that it stands beside: `python -m tests.benchmarks.shadows [rounds]`.

The same calls of `lab.complete` with a shadow on every unit and without one, in turn. In `settled` a shadow has ended
before the next call begins; in `under_way` nobody waits for it, so that its work falls into the calls that follow, and
in `hanging` sixteen shadows get no answer. Then how long a report takes, beside an analysis of the same events.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import openai

import promptab
from promptab import Lab, PromptVariant, ShadowSettings
from tests.benchmarks.calls import Took, median_more, timed
from tests.llm_server import Asked, LlmServer, running

ROUNDS = 1_000
UNITS, EVENTS_PER_UNIT = 20_000, 10
SERVED, SHADOW = "gpt-4.1-mini", "gpt-4.1-nano"
NEVER_ANSWERED = "gpt-4.1"


class HalfDeafServer(LlmServer):
    """Answers all models but one."""

    async def respond(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if asked.body["model"] == NEVER_ANSWERED:
            await reader.read()
            return False
        return await super().respond(asked, reader, writer)


def serve(address: Any) -> None:
    async def main() -> None:
        async with running(HalfDeafServer()) as server:
            address.send(server.url)
            await asyncio.Event().wait()

    asyncio.run(main())


async def prepare(lab: Lab, name: str, shadow: str | None) -> None:
    for number, model in (("1.0.0", SERVED), ("2.0.0", shadow or SHADOW)):
        await lab.versions.create_version(
            name, "system", "Help {{ customer }}.", version=number, config={"model": model}
        )
    beside = PromptVariant("2.0.0") if shadow is None else PromptVariant("2.0.0", shadow=1.0)
    await lab.experiments.create_experiment(name, "system", [PromptVariant("1.0.0"), beside])


async def measure(lab: Lab, client: Any, what: str, rounds: int, *, settle: bool) -> None:
    async def ask(name: str) -> Any:
        return await lab.complete(name, user_id="u", variables={"customer": "Ada"}, client=client)

    for name in ("plain", what) * 30:
        await ask(name)
    await lab.calls.flush()
    gc.collect()
    without: list[Took] = []
    beside: list[Took] = []
    for _ in range(rounds):
        without.append(await timed(lambda: ask("plain")))
        beside.append(await timed(lambda: ask(what)))
        if settle:
            await lab.shadows.settle()
        await lab.calls.flush()
    wall = [statistics.median(took.wall for took in each) for each in (without, beside)]
    more = [median_more(without, beside, part) for part in ("wall", "cpu")]
    tail = [statistics.quantiles([took.wall for took in each], n=100)[98] for each in (without, beside)]
    print(f"{what:10}" + "".join(f"{number:10.3f}" for number in (*wall, *more, *tail)))


async def report(folder: Path) -> None:
    async with promptab.open(f"sqlite:///{folder / 'report.db'}") as lab:
        await prepare(lab, "plain", SHADOW)
        await lab.experiments.update_shadow("plain", "2.0.0", 0.1)
        for number in range(UNITS):
            choice = await lab.choose("plain", user_id=f"u{number}")
            for _ in range(EVENTS_PER_UNIT):
                choice.record_nowait(True, 0.5 + number % 7, 100, cost=0.001)
                for run in choice.shadows:
                    run.record_nowait(True, 0.25 + number % 5, 90, cost=0.002)
            await asyncio.sleep(0)
        await lab.metrics.flush()
        for name, ask in (("analysis", lab.analyze), ("again", lab.analyze), ("report", lab.shadow_report)):
            started = time.perf_counter()
            await ask("plain")
            print(f"{name:10}{time.perf_counter() - started:10.3f} s")


async def main(rounds: int, url: str) -> None:
    server = LlmServer(url=url)
    with tempfile.TemporaryDirectory() as folder:
        settings = ShadowSettings(close_seconds=0.1, timeout_seconds=3_600.0)
        async with (
            promptab.open(f"sqlite:///{Path(folder) / 'calls.db'}", shadows=settings) as lab,
            openai.AsyncOpenAI(**server.openai, max_retries=0) as client,
        ):
            await prepare(lab, "plain", None)
            for name in ("settled", "under_way"):
                await prepare(lab, name, SHADOW)
            await prepare(lab, "hanging", NEVER_ANSWERED)
            print(f"medians of {rounds} calls in milliseconds")
            print("shadow     without      with      more  more cpu   p99 w/o  p99 with")
            await measure(lab, client, "settled", rounds, settle=True)
            await measure(lab, client, "under_way", rounds, settle=False)
            await measure(lab, client, "hanging", rounds, settle=False)
            print(lab.shadows.stats())
        print(f"\n{UNITS:,} units of {EVENTS_PER_UNIT} events each, a tenth of them in the shadow")
        await report(Path(folder))


if __name__ == "__main__":
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=serve, args=(sending,), daemon=True)
    process.start()
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS, receiving.recv()))
    process.terminate()
