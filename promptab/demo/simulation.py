"""A simulated model and simulated customers: no key, no network, the same numbers for the same seed."""

from __future__ import annotations

import math
import random

from promptab.demo.answering import Case, Reply
from promptab.demo.prompts import BETTER, WORSE
from promptab.models import Tokens

_DOLLARS_PER_INPUT_TOKEN = 0.4e-6
_DOLLARS_PER_OUTPUT_TOKEN = 1.6e-6


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
        tokens = Tokens(
            input=len(prompt) // 4,
            cached_input=0,
            output=round(rng.gauss(70, 12) if better else rng.gauss(95, 25)),
        )
        spent = len(prompt) // 4 * _DOLLARS_PER_INPUT_TOKEN + (tokens.output or 0) * _DOLLARS_PER_OUTPUT_TOKEN
        liking = 4.1 if success else 2.3
        rating = min(5.0, max(1.0, float(round(rng.gauss(liking, 0.8))))) if rng.random() < 0.15 else None
        return Reply(
            text=f"Hello{'' if worse else f' {case.customer}'}, (a simulated reply)",
            success=success,
            seconds=0.3 + rng.lognormvariate(-1.0, 0.4) * (tokens.output or 0) / 50,
            tokens=tokens,
            cost=spent,
            rating=rating,
        )
