"""How large a template and a render may be. Every limit is a count, so the same input is always refused at
the same point.
"""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """Upper bounds for one template and for one render of a prompt with all its messages and includes."""

    source_chars: int = 100_000
    """Characters of one template or one included body."""
    syntax_nodes: int = 5_000
    """Nodes of the syntax tree of one template: a name, a constant, an operator, a tag, a stretch of text is
    one node each.
    """
    nesting: int = 64
    """How deep tags and expressions nest in a template; `a + b + c` nests once per operator."""
    includes: int = 100
    """Bodies that a prompt includes, directly or through other includes."""
    depth: int = 24
    """Macros, recursive loops and includes that are active at once."""
    steps: int = 1_000_000
    """Work: a loop pays the nodes of its body for each item, a macro those of its body for each call, a
    filter or an operator one step for each item and for each 256 characters that it looks at.
    """
    built_chars: int = 10_000_000
    """Characters of all texts that operators, filters, macros and blocks build on the way to the output."""
    output_chars: int = 1_000_000
    """Characters of all messages together."""
    int_bits: int = 256
    """Bits of an integer, in variables, constants and results."""
    value_depth: int = 32
    """How deep lists and objects nest in variables, and in whatever is printed or compared."""
    value_items: int = 100_000
    """List items and object members in all variables together."""
