"""A limit of cost that is held: what a request may cost at most is set aside before it is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from promptab.calls.pricing import Asked, PriceBook
from promptab.calls.usage import Usage
from promptab.errors import InvalidInputError
from promptab.trying.trial import LENGTHS

_UNSEEN_TOKENS = 1_000
"""What a provider adds to a request by itself, such as instructions for the use of tools."""

_ROUNDING = 1e-12
"""US dollars."""


class Ceiling:
    """US dollars, of which requests set their share aside. None is no limit."""

    def __init__(self, dollars: float | None) -> None:
        self._dollars = dollars
        self._spent = 0.0
        self._aside = 0.0
        self._changed = asyncio.Condition()

    async def set_aside(self, dollars: float) -> bool:
        """Return whether there is as much; waits for what requests under way may give back."""
        if self._dollars is None:
            return True
        async with self._changed:
            while self._spent + self._aside + dollars > self._dollars + _ROUNDING:
                if self._aside <= _ROUNDING or self._spent + dollars > self._dollars + _ROUNDING:
                    return False
                await self._changed.wait()
            self._aside += dollars
            return True

    async def spend(self, aside: float, dollars: float | None) -> None:
        """Give back what was set aside, but for what it cost: all of it where that is not known."""
        if self._dollars is None:
            return
        async with self._changed:
            self._aside -= aside
            self._spent += aside if dollars is None else dollars
            self._changed.notify_all()


def most_that_it_costs(prices: PriceBook, asked: Asked, arguments: Mapping[str, Any], at: datetime) -> float:
    """Return the US dollars that a request costs at most.

    No token is shorter than a byte, so there are no more tokens than bytes. Raises `InvalidInputError` for a request
    whose answer may be of any length, and for a model without a price.
    """
    body = {**arguments, **(arguments.get("extra_body") or {})}
    length = next((body[name] for name in LENGTHS if isinstance(body.get(name), int)), None)
    if length is None:
        raise InvalidInputError(
            "config.parameters.max_tokens",
            None,
            "given, and without it no limit of cost can be held",
            "put it into the version's config, or give one for the test (--max-tokens, max_tokens=)",
        )
    count = body.get("n")
    output = length * (count if isinstance(count, int) else 1)
    whole = len(json.dumps(body, default=str).encode()) + _UNSEEN_TOKENS
    usages = [
        Usage(
            uncached=fresh,
            cache_read=0,
            cache_write=written,
            cache_write_1h=written,
            output=output,
            reasoning=r,
        )
        for fresh, written in ((whole, 0), (0, whole))
        for r in (0, output)
    ]
    costs = [prices.cost(asked, usage, at) for usage in usages]
    known = [cost for cost in costs if cost is not None]
    if len(known) < len(costs):
        raise InvalidInputError(
            "max_cost",
            asked.model,
            "a model whose price is known",
            "give its price in the file that PROMPTAB_PRICES names, or leave the limit out",
        )
    return max(known)
