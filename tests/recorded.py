"""Answers to questions under two prompts: recorded ones of a real model where they are, else made here."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from examples.replay import read_replies

DIRECTLY = "Q: {{ question }}\nA: The answer (arabic numerals) is"
STEP_BY_STEP = "Q: {{ question }}\nA: Let's think step by step."
ENDINGS = {"1.0.0": "A: The answer (arabic numerals) is", "1.1.0": "A: Let's think step by step."}


class Recorded(NamedTuple):
    """One answer."""

    text: str
    correct: bool


Answers = Mapping[str, Mapping[str, Recorded]]
"""Question -> version -> the answer under that version's prompt."""


def recorded_answers(path: Path) -> Answers:
    """Return the 600 questions of multiarith with the answers that a real model gave."""
    replies = read_replies(path)["multiarith"]
    return {
        each["1.0.0"].question: {
            number: Recorded(reply.text, reply.correct) for number, reply in each.items()
        }
        for each in replies.values()
    }


def made_answers(count: int = 300) -> Answers:
    """Return sums with answers of our own making: right in one of five at once, in four of five step by step."""
    chance = random.Random(5)
    answers: dict[str, dict[str, Recorded]] = {}
    while len(answers) < count:
        one, other = chance.randint(10, 99), chance.randint(10, 99)
        by_version = {}
        for number, share in (("1.0.0", 0.2), ("1.1.0", 0.8)):
            right = chance.random() < share
            by_version[number] = Recorded(f"It is {one + other if right else one - other}.", right)
        answers[f"What is {one} and {other} together?"] = by_version
    return answers
