"""What the demo asks of a model, and what it hears back; the customers who ask."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from promptab.models import Tokens

_NAMES = ("Ada", "Bo", "Chidi", "Dana", "Emre", "Farah", "Goran", "Hana", "Ines", "Jonas", "Kemi", "Luca")
_QUESTIONS = (
    "Where is my parcel? It was due on Monday.",
    "The lamp arrived broken. What now?",
    "Can I change the address of an order that I placed an hour ago?",
    "Do you have the blue jacket in M again?",
    "My discount code does not work.",
    "How do I send something back?",
    "The invoice shows the wrong company name.",
)


class Case(NamedTuple):
    """One question of one customer."""

    user_id: str
    customer: str
    """The name to address the customer by."""
    question: str
    turn: int
    """Which of the customer's questions it is, from 0."""


class Reply(NamedTuple):
    """What came of one call."""

    success: bool
    seconds: float
    tokens: Tokens
    cost: float | None
    """US dollars; None where the price is not known."""
    rating: float | None
    """1 to 5, from the few customers who give one."""


class Model(Protocol):
    """Answers customers, and knows by which rule an answer counts as a success."""

    @property
    def name(self) -> str: ...

    @property
    def success_rule(self) -> str:
        """The rule as a sentence."""

    async def answer(self, prompt: str, case: Case) -> Reply: ...


def case_of(customer: int, turn: int) -> Case:
    """Return what the customer of this number (from 1) asks at this turn."""
    return Case(
        user_id=f"customer-{customer:04}",
        customer=_NAMES[customer % len(_NAMES)],
        question=_QUESTIONS[(customer + turn) % len(_QUESTIONS)],
        turn=turn,
    )
