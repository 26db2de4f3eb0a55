"""Replay recorded replies of a real model as if its users asked again: which of two prompts is better?

    python examples/replay.py zero_shot_replies.jsonl.gz
    python examples/replay.py zero_shot_replies.jsonl.gz --all

The file holds one JSON object a line, gzipped or not: `dataset` (the question set), `prompt` (`zero_shot` or
`zero_shot_cot`), `item` (the question's number in its set, the same under both prompts), `question`, `reply` and
`correct`. The replies of text-davinci-002 in https://github.com/kojima-takeshi188/zero_shot_cot were recorded so.

For every question set the two prompts become versions 1.0.0 and 1.1.0 of one prompt, and every question is a
unit: it is dealt to one of the two, and the recorded reply of that one is looked at. A version that is shown to
be better is promoted. With `--all` both replies to every question are recorded, each under its own version.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import promptab
from promptab import AnalysisResult, Lab, PromptVariant, PromptVersion
from promptab.analysis.result import METHODS, Method

VERSIONS = {"zero_shot": "1.0.0", "zero_shot_cot": "1.1.0"}
STEP_BY_STEP = "Q: {{ question }}\nA: Let's think step by step."


class Reply(NamedTuple):
    question: str
    text: str
    correct: bool


Replies = Mapping[int, Mapping[str, Reply]]
"""Question number -> version -> the recorded reply."""


def read_replies(path: Path) -> dict[str, Replies]:
    """Return the replies by question set."""
    sets: dict[str, dict[int, dict[str, Reply]]] = defaultdict(lambda: defaultdict(dict))
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for line in lines:
            row = json.loads(line)
            reply = Reply(row["question"], row["reply"], row["correct"])
            sets[row["dataset"]][row["item"]][VERSIONS[row["prompt"]]] = reply
    return dict(sets)


async def create_versions(lab: Lab, question_set: str) -> dict[str, PromptVersion]:
    """Create both prompts, as they were asked, and put the first into production; return them by number."""
    wanted = (
        "Among A through E, the answer is"  # commonsenseqa asks for a letter, the other sets for a number
    )
    if question_set != "commonsenseqa":
        wanted = "The answer (arabic numerals) is"
    plain = await lab.versions.create_version(
        question_set, "user", f"Q: {{{{ question }}}}\nA: {wanted}", "1.0.0", status="production"
    )
    stepwise = await lab.versions.create_version(question_set, "user", STEP_BY_STEP, "1.1.0")
    return {"1.0.0": plain, "1.1.0": stepwise}


async def start_experiment(lab: Lab, question_set: str, salt: str) -> str:
    """Start an experiment on the question set and return its id. The salt decides who gets what."""
    experiment = await lab.experiments.create_experiment(
        question_set, "user", [PromptVariant("1.0.0", 50), PromptVariant("1.1.0", 50)], salt=salt
    )
    return experiment.experiment_id


async def replay_assigned(
    lab: Lab, question_set: str, replies: Replies, *, salt: str, method: Method = "sequential"
) -> AnalysisResult:
    """Ask every question once, of the version that it is dealt to, and promote a version that is better."""
    await create_versions(lab, question_set)
    experiment_id = await start_experiment(lab, question_set, salt)

    async def ask(number: int, recorded: Mapping[str, Reply]) -> None:
        choice = await lab.choose(question_set, "user", user_id=number)
        # a question outside the experiment would get what is in production
        reply = recorded[choice.variant or "1.0.0"]
        choice.render(question=reply.question)  # what a live model would have been sent
        await choice.record(success=reply.correct)

    # all at once: outcomes that are recorded side by side share their commits
    await asyncio.gather(*(ask(number, recorded) for number, recorded in replies.items()))
    result = await lab.analyze(experiment_id, method)
    if result.winner is not None:
        await lab.promote_winner(experiment_id, method, allow_approximate=True)
    return result


async def replay_all(
    lab: Lab, question_set: str, replies: Replies, *, salt: str, method: Method = "sequential"
) -> AnalysisResult:
    """Record both replies to every question, each under its own version and as a unit of its own.

    Nothing was dealt here, so nothing is promoted.
    """
    versions = await create_versions(lab, question_set)
    experiment_id = await start_experiment(lab, question_set, salt)
    await asyncio.gather(
        *(
            lab.metrics.record_event(
                versions[number].version_id,
                reply.correct,
                experiment_id=experiment_id,
                variant=number,
                user_id=f"question {question}, version {number}",
            )
            for question, recorded in replies.items()
            for number, reply in recorded.items()
        )
    )
    return await lab.analyze(experiment_id, method)


async def replay(path: Path, *, url: str, every_reply: bool, salt: str, method: Method) -> None:
    async with promptab.open(url) as lab:
        for question_set, replies in read_replies(path).items():
            work = replay_all if every_reply else replay_assigned
            result = await work(lab, question_set, replies, salt=salt, method=method)
            print(f"\n{question_set}: {len(replies)} questions")
            for variant, estimate in result.metrics["success_rate"].estimates.items():
                rate = 100 * (estimate.value or 0.0)
                print(f"  {variant}  {rate:6.3f} % right of {estimate.events} replies")
            print(f"  {result.reason}")
            live = await lab.choose(question_set, "user", environment="production")
            print(f"  in production: {live.version.version if live.version else 'nothing'}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Replay recorded replies to two prompts.")
    parser.add_argument("file", type=Path, help="recorded replies, JSON lines, gzipped or not")
    parser.add_argument("--all", action="store_true", help="record every reply, whatever was dealt")
    parser.add_argument("--url", default="sqlite:///:memory:", help="a new store (default: in memory)")
    parser.add_argument("--salt", default="replay", help="decides which question is dealt to which version")
    parser.add_argument("--method", choices=METHODS, default="sequential", help="how to read the difference")
    arguments = parser.parse_args()
    asyncio.run(
        replay(
            arguments.file,
            url=arguments.url,
            every_reply=arguments.all,
            salt=arguments.salt,
            method=arguments.method,
        )
    )


if __name__ == "__main__":
    main()
