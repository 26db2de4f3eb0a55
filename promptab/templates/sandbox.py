"""The Jinja2 environment that all templates share: immutable sandbox, no loader, no globals, own filters and
tests.

Nothing in it changes after import, so that compiled templates can render in any thread.
"""

from __future__ import annotations

from jinja2.sandbox import ImmutableSandboxedEnvironment

from promptab.templates.budget import Missing, each
from promptab.templates.calls import MeteredMacro, call, call_method, recurse
from promptab.templates.operators import OPERATORS, member_key
from promptab.templates.predicates import PREDICATES
from promptab.templates.sequence_filters import FILTERS

# A name that no template can write: the compiler puts this filter around what a loop loops over
EACH = "for each"


class PromptEnvironment(ImmutableSandboxedEnvironment):
    """Jinja2's immutable sandbox, without whatever reaches beyond plain values."""

    def __init__(self) -> None:
        super().__init__(
            undefined=Missing, autoescape=False, keep_trailing_newline=True, optimized=False, cache_size=0
        )
        self.globals.clear()
        self.filters = {**FILTERS, EACH: each}
        self.tests = dict(PREDICATES)
        # what compiled code calls in place of Python's own operators and calls
        self.guards = {
            **OPERATORS,
            "call": call,
            "method": call_method,
            "recurse": recurse,
            "key": member_key,
            "macro": MeteredMacro,
        }


ENVIRONMENT = PromptEnvironment()
