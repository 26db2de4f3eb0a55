"""Templates as hostile input: Jinja2 syntax, plain values, no loader, and a budget that is checked before
each step.

A compiled template runs code from which every Python operator, attribute and call has been replaced
(`compiler`), on values that are copies of plain data (`values`), with the work counted (`budget`). The same
input always costs the same: there is no clock in it.

Importing this package loads Jinja2, which takes as long as the rest of `import promptab`. So what is imported
with promptab imports it inside the functions that compile a template.
"""

from promptab.templates.body import Partial
from promptab.templates.condition import Condition, compile_condition
from promptab.templates.limits import Limits
from promptab.templates.prompt import CompiledPrompt, TemplateFacts, compile_prompt, inspect_template
from promptab.templates.schema import check_schema, check_value_schema, schema_violation

__all__ = [
    "CompiledPrompt",
    "Condition",
    "Limits",
    "Partial",
    "TemplateFacts",
    "check_schema",
    "check_value_schema",
    "compile_condition",
    "compile_prompt",
    "inspect_template",
    "schema_violation",
]
