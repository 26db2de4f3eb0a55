"""What a prompt gives, as roles and texts, and shorthands for reading and writing one."""

from __future__ import annotations

from typing import Any

from promptab.content import sources
from promptab.formats import Format, Imported, Wish, read_foreign, write_foreign
from promptab.library import PromptSource
from promptab.templates import compile_prompt

Messages = list[tuple[str, str]]


def rendered(source: PromptSource, /, **variables: Any) -> Messages:
    """Render with those of the variables that the prompt takes."""
    prompt = compile_prompt(
        messages=sources(source.prompt_type, source.template, source.messages),
        defaults=source.defaults,
        validation=source.validation,
        name=source.label,
    )
    given = {name: value for name, value in variables.items() if name in prompt.variables}
    return [(message.role, message.content) for message in prompt.render(given)]


def read(
    text: str, form: Format | None = None, *, path: str = "greeting.txt", wish: Wish | None = None
) -> Imported:
    return read_foreign(text.encode(), path=path, form=form, wish=wish)


def again(source: PromptSource, form: Format) -> Imported:
    """Write a prompt and read what was written, without being told the format but by the folder it stands in."""
    exported = write_foreign(source, form)
    return read(exported.text, form, path=exported.path)
