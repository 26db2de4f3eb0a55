"""The demonstration: the whole loop on one prompt, with a simulated model or a real one."""

from promptab.demo.answering import Case, Model, Reply
from promptab.demo.providers import ProviderError, open_provider
from promptab.demo.simulation import SimulatedModel
from promptab.demo.story import Demo, Fall, Served

__all__ = [
    "Case",
    "Demo",
    "Fall",
    "Model",
    "ProviderError",
    "Reply",
    "Served",
    "SimulatedModel",
    "open_provider",
]
