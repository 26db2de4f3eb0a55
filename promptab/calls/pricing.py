"""What a call costs: prices of your own models, else the dated ones that come with `genai-prices`.

A model without a price has an unknown cost, never a cost of zero, and is named once in a warning.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from promptab.calls.usage import Usage
from promptab.checks import MAX_MEASURE, check_mapping, check_number
from promptab.errors import InvalidInputError

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice

logger = logging.getLogger("promptab.calls")

PRICES_VARIABLE = "PROMPTAB_PRICES"

_MILLION = 1_000_000
_REMEMBERED = 1_000
"""Models, by the names that answers bear; those are the provider's to invent."""
_LASTING_SECONDS = 900
"""Some prices change by the time of day, on quarters of an hour: so long is one good."""


class Price(NamedTuple):
    """US dollars per million tokens. What is None costs the same as what it is a part or a kind of."""

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    reasoning: float | None = None

    def cost(self, usage: Usage) -> float | None:
        """Return US dollars, or None where a count that the price depends on is unknown."""
        read = self.input if self.cache_read is None else self.cache_read
        write = self.input if self.cache_write is None else self.cache_write
        write_1h = write if self.cache_write_1h is None else self.cache_write_1h
        reasoning = self.output if self.reasoning is None else self.reasoning
        rates = (self.input, read, write)
        counts = (usage.uncached, usage.cache_read, usage.cache_write)
        open_rates = {rate for rate, count in zip(rates, counts, strict=True) if count is None}
        if usage.output is None or (len(open_rates) > (usage.unsplit is not None)):
            return None
        if (reasoning != self.output and usage.reasoning is None) or (
            write_1h != write and usage.cache_write and usage.cache_write_1h is None
        ):
            return None
        total = sum(rate * (count or 0) for rate, count in zip(rates, counts, strict=True))
        total += (usage.unsplit or 0) * next(iter(open_rates), 0.0)
        total += (write_1h - write) * (usage.cache_write_1h or 0)
        total += self.output * usage.output + (reasoning - self.output) * (usage.reasoning or 0)
        return max(0.0, total) / _MILLION


class Asked(NamedTuple):
    """Which price is asked for."""

    vendor: str | None
    """The client's: `openai` or `anthropic`; None where the model's name has to tell."""
    url: str | None
    """Where the client sends its requests, which may be somebody who sells the same models."""
    model: str
    terms: tuple[tuple[str, str], ...] = ()
    """What else the provider charges by, such as (`service_tier`, `flex`)."""


class _Tiers(NamedTuple):
    """The price by the length of the input, ascending; each holds for more tokens than its start."""

    prices: Sequence[tuple[int, Price]]

    def at(self, usage: Usage) -> Price | None:
        if len(self.prices) == 1:
            return self.prices[0][1]
        length = usage.input
        if length is None:
            return None
        return next((price for start, price in reversed(self.prices) if length > start), self.prices[0][1])


class PriceBook:
    """Prices by model: `own` first, by the exact name, then those of `genai-prices`."""

    def __init__(self, own: Mapping[str, Price | Mapping[str, float]] | None = None) -> None:
        self._own = {model: check_price(f"prices.{model}", price) for model, price in (own or {}).items()}
        self._found: dict[Asked, tuple[int, _Tiers | None]] = {}
        self._warned: set[str] = set()
        self._loading: asyncio.Future[None] | None = None

    @classmethod
    def of_environment(cls) -> PriceBook:
        """Read the file that `PROMPTAB_PRICES` names: YAML or JSON, model -> `input`, `output` and so on.

        Raises `InvalidInputError` for a file that cannot be read or a price that is none.
        """
        named = os.environ.get(PRICES_VARIABLE)
        return cls() if not named else cls(read_prices(Path(named)))

    async def ready(self) -> None:
        """Load the bundled prices, once in a process and beside the event loop: it takes about a second."""
        if self._loading is None or self._loading.get_loop() is not asyncio.get_running_loop():
            self._loading = asyncio.ensure_future(asyncio.to_thread(_load))
        if not self._loading.done():
            await asyncio.shield(self._loading)

    @staticmethod
    def load() -> None:
        """As `ready`, in a thread that can wait."""
        _load()

    def cost(self, asked: Asked | None, usage: Usage, at: datetime) -> float | None:
        """Return US dollars at the prices of that time; None where price or counts are not known."""
        if asked is None:
            return None
        own = self._own.get(asked.model)
        price = own if own is not None else self._bundled(asked, usage, at)
        return None if price is None else price.cost(usage)

    def _bundled(self, asked: Asked, usage: Usage, at: datetime) -> Price | None:
        quarter = int(at.timestamp()) // _LASTING_SECONDS
        found = self._found.get(asked)
        if found is None or found[0] != quarter:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            found = self._found[asked] = quarter, _bundled_price(asked, at)
        if found[1] is None:
            self._warn(asked)
            return None
        return found[1].at(usage)

    def _warn(self, asked: Asked) -> None:
        if asked.model not in self._warned and len(self._warned) < _REMEMBERED:
            self._warned.add(asked.model)
            logger.warning(
                "no price is known for model %r of %s, so the cost of its calls is unknown; give one in the file that "
                "%s names, or as lab.calls.prices",
                asked.model,
                asked.vendor or "any provider",
                PRICES_VARIABLE,
            )


def check_price(field: str, price: object) -> Price:
    """Return the price. Raises `InvalidInputError` naming the part that is wrong."""
    given = price._asdict() if isinstance(price, Price) else dict(check_mapping(field, price))
    if unknown := [part for part in given if part not in Price._fields]:
        raise InvalidInputError(field, unknown[0], f"one of {', '.join(Price._fields)}")
    if missing := [part for part in ("input", "output") if given.get(part) is None]:
        raise InvalidInputError(
            f"{field}.{missing[0]}", None, "given", "write US dollars per million tokens, 0 for none"
        )
    return Price(
        **{
            part: check_number(f"{field}.{part}", rate, low=0.0, high=MAX_MEASURE / _MILLION)
            for part, rate in given.items()
            if rate is not None
        }
    )


def read_prices(path: Path) -> Mapping[str, Price]:
    import yaml  # noqa: PLC0415 - most programs have no such file

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = type(error).__name__
        raise InvalidInputError(
            PRICES_VARIABLE, str(path), f"a YAML file that can be read ({reason})"
        ) from None
    return {
        str(model): check_price(f"{path.name}: {model}", price)
        for model, price in check_mapping(PRICES_VARIABLE, document or {}).items()
    }


def _load() -> None:
    try:
        import genai_prices  # noqa: PLC0415 - it takes longer to import than all of promptab
    except ImportError:
        logger.warning(
            "genai-prices is not installed, so only your own models have prices; "
            "install it with: pip install 'promptab[openai]' or 'promptab[anthropic]'"
        )
        return
    # the first price builds the tables of all
    genai_prices.calc_price(genai_prices.Usage(input_tokens=1), "gpt-4.1-mini", provider_id="openai")


def _bundled_price(asked: Asked, at: datetime) -> _Tiers | None:
    try:
        from genai_prices import Usage as Counts  # noqa: PLC0415 - as in `_load`
        from genai_prices import calc_price  # noqa: PLC0415
    except ImportError:
        return None
    terms = dict(asked.terms)
    known = {"provider_api_url": asked.url, "provider_id": asked.vendor}
    for where in [{name: value} for name, value in known.items() if value is not None] or [{}]:
        try:
            found: Any = calc_price(
                Counts(input_tokens=1),
                asked.model,
                genai_request_timestamp=at,
                price_context=terms,
                **where,
            )
        except LookupError:
            # a private address: whose models these are, the client tells
            continue
        except (ValueError, ArithmeticError) as error:
            logger.warning("the bundled price of model %r cannot be read: %s", asked.model, error)
            return None
        return _tiers(found.model_price)
    return None


def _tiers(price: ModelPrice) -> _Tiers:
    """Ask for the price of one token of each kind: within a tier the cost is a sum over tokens."""
    from genai_prices.types import TieredPrices  # noqa: PLC0415 - as in `_load`

    tiered = [rate for rate in vars(price).values() if isinstance(rate, TieredPrices)]
    starts = sorted({0, *(tier.start for rate in tiered for tier in rate.tiers)})
    return _Tiers([(start, _rates(price, start + 1)) for start in starts])


def _rates(price: ModelPrice, length: int) -> Price:
    """Return the rates for an input of this length."""
    from genai_prices import Usage as Counts  # noqa: PLC0415 - as in `_load`

    def dollars(**counts: int) -> Any:
        return price.calc_price(Counts(input_tokens=length, **counts))["total_price"]

    base = dollars()

    def each(whole: Any, tokens: int) -> float:
        return float(whole * _MILLION / tokens)

    output = {"output_tokens": 1}
    return Price(
        input=each(base, length),
        output=each(dollars(**output) - base, 1),
        cache_read=each(dollars(cache_read_tokens=length), length),
        cache_write=each(dollars(cache_write_tokens=length), length),
        cache_write_1h=each(dollars(cache_write_tokens=length, cache_write_1h_tokens=length), length),
        reasoning=each(dollars(**output, output_reasoning_tokens=1) - base, 1),
    )
