"""A simulated model and simulated customers: no key, no network, the same numbers for the same seed."""

from __future__ import annotations

import math
import random

from promptab.demo.answering import Case, Reply
from promptab.demo.prompts import BETTER, WORSE
from promptab.models import Tokens

_DOLLARS_PER_INPUT_TOKEN = 0.4e-6
_DOLLARS_PER_OUTPUT_TOKEN = 1.6e-6
_FEWEST_TOKENS = 8
"""A normal draw has no lower end, a reply has."""


class SimulatedModel:
    """Replies by chance. It reads the prompt: one sentence makes it better, another makes it worse.

    The log-odds of a success are 0.5, plus 0.6 or minus 1.5 for those sentences, plus what the customer brings:
    a normal draw per customer with standard deviation 0.9, so that calls of one customer are alike.
    """

    name = "simulated"
    success_rule = "the simulated customer did not have to write again"

    def __init__(self, seed: int) -> None:
        self._seed = seed

    async def answer(self, prompt: str, case: Case) -> Reply:
        # by customer and turn, so that the numbers do not depend on who is served first
        patience = random.Random(f"{self._seed}/{case.user_id}").gauss(0.0, 0.9)  # noqa: S311 - nothing secret
        rng = random.Random(f"{self._seed}/{case.user_id}/{case.turn}")  # noqa: S311
        better, worse = BETTER in prompt, WORSE in prompt
        odds = math.exp(0.5 + patience + 0.6 * better - 1.5 * worse)
        success = rng.random() < odds / (1.0 + odds)
        read = len(prompt) // 4
        written = max(_FEWEST_TOKENS, round(rng.gauss(70, 12) if better else rng.gauss(95, 25)))
        liking = round(rng.gauss(4.1 if success else 2.3, 0.8))
        return Reply(
            success=success,
            seconds=0.3 + rng.lognormvariate(-1.0, 0.4) * written / 50,
            tokens=Tokens(input=read, cached_input=0, output=written, total=read + written),
            cost=read * _DOLLARS_PER_INPUT_TOKEN + written * _DOLLARS_PER_OUTPUT_TOKEN,
            rating=float(min(5, max(1, liking))) if rng.random() < 0.15 else None,
        )
