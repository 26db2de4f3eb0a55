"""Which format a file has, by what is in it; its name says nothing, as several formats share theirs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from promptab.errors import PromptFileError
from promptab.formats import dataknobs, llm_template
from promptab.formats.exchange import Format
from promptab.formats.foreign import ForeignFile
from promptab.formats.prompty import ROLE_LINE

_HELPER = re.compile(r"\{\{~?\s*(?:[#>]|role\s|history\s*~?\}\}|else|json\s|media\s|section\s)")
_JINJA_TAG = re.compile(r"(?<!\{)\{[%#]")
_DOTPROMPT_KEYS = frozenset({"input", "output", "config", "toolDefs", "variant", "ext"})
_PROMPTY_KEYS = frozenset({"inputs", "outputs", "sample", "template", "authors", "displayName"})
_GITHUB_KEYS = frozenset({
    "name", "description", "model", "modelParameters", "testData", "evaluators", "responseFormat", "jsonSchema",
})  # fmt: skip
_OWN_KEYS = frozenset({"promptab", "input", "output", "config", "tools"})
_UNDECIDED = "nothing in it tells it apart"


class _Seen(NamedTuple):
    """What there is to go by."""

    has_front: bool
    keys: Mapping[str, Any]
    """Of the front matter or of the document; empty where there is neither."""
    text: str
    """Below the front matter, or all of it."""

    @property
    def is_document(self) -> bool:
        return not self.has_front and bool(self.keys)

    @property
    def helper(self) -> str | None:
        found = _HELPER.search(self.text)
        return None if found is None else found[0].strip()

    @property
    def has_role_lines(self) -> bool:
        return any(ROLE_LINE.fullmatch(line) for line in self.text.split("\n"))


Reasons = Callable[[_Seen], Iterator[str]]


class _Signs(NamedTuple):
    against: Reasons
    speaking_for: Reasons


def sniff(file: ForeignFile) -> Format:
    """Return the one format that a file has.

    Raises:
        PromptFileError: where none or several fit, naming each and why.
    """
    located = file.front or file.document
    keys = located.value if located is not None and isinstance(located.value, dict) else {}
    seen = _Seen(file.front is not None, keys, file.body)
    against = {form: next(signs.against(seen), None) for form, signs in _SIGNS.items()}
    speaking = {form: next(signs.speaking_for(seen), None) for form, signs in _SIGNS.items()}
    fitting = [form for form in _SIGNS if against[form] is None and speaking[form] is not None]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        told = ", ".join(f"{form} ({speaking[form]})" for form in fitting)
        raise PromptFileError(file.path, f"could be of several formats: {told}; say which with --format")
    told = ", ".join(f"{form} ({against[form] or 'no sign of it'})" for form in _SIGNS)
    broken = "" if file.problem is None else f"; read as YAML or JSON: {file.problem}"
    raise PromptFileError(file.path, f"is of none of the formats tried: {told}{broken}")


def _against_text(seen: _Seen) -> Iterator[str]:
    """Why a file is no front matter with a text below it that others would write."""
    if seen.is_document:
        yield "one document, without a text below front matter"
    if "promptab" in seen.keys:
        yield "the key promptab: it is a file of promptab's own, for prompts/"


def _against_dotprompt(seen: _Seen) -> Iterator[str]:
    yield from _against_text(seen)
    yield from (f"the key {key}" for key in sorted(_PROMPTY_KEYS & seen.keys.keys()))
    if isinstance(seen.keys.get("model"), dict):
        yield "model is more than a name"
    if _JINJA_TAG.search(seen.text):
        yield "tags of Jinja2"
    if seen.helper is None and seen.has_role_lines:
        yield "role lines"


def _for_dotprompt(seen: _Seen) -> Iterator[str]:
    if seen.helper is not None:
        yield f"{seen.helper} in its text"
    yield from (f"the key {key}" for key in _keys_of_dotprompt(seen))
    if seen.has_front:
        yield _UNDECIDED


def _keys_of_dotprompt(seen: _Seen) -> list[str]:
    """Its own keys, and those that others add to its front matter, which have a dot."""
    return sorted(key for key in seen.keys if key in _DOTPROMPT_KEYS or "." in key)


def _against_prompty(seen: _Seen) -> Iterator[str]:
    yield from _against_text(seen)
    yield from (f"the key {key}" for key in _keys_of_dotprompt(seen))
    if seen.helper is not None and "template" not in seen.keys:
        yield f"{seen.helper} in its text"


def _for_prompty(seen: _Seen) -> Iterator[str]:
    yield from (f"the key {key}" for key in sorted(_PROMPTY_KEYS & seen.keys.keys()))
    if isinstance(seen.keys.get("model"), dict):
        yield "model with keys of its own"
    if seen.has_role_lines:
        yield "role lines"
    if seen.has_front:
        yield _UNDECIDED


def _against_github(seen: _Seen) -> Iterator[str]:
    if seen.has_front:
        yield "front matter"
    yield from (
        f"the key {key}" for key in sorted(((dataknobs.KEYS - {"messages"}) | _OWN_KEYS) & seen.keys.keys())
    )
    if not isinstance(seen.keys.get("messages"), list):
        yield "no list of messages"


def _for_github(seen: _Seen) -> Iterator[str]:
    yield from (f"messages beside {key}" for key in sorted(_GITHUB_KEYS & seen.keys.keys()))
    yield "messages alone"


def _against_dataknobs(seen: _Seen) -> Iterator[str]:
    if seen.has_front:
        yield "front matter"
    own = sorted(_OWN_KEYS & seen.keys.keys())
    if own and "template" in seen.keys:
        yield f"the key {own[0]}: it is a file of promptab's own, for prompts/"
    if not seen.keys.keys() >= dataknobs.RAG_KEYS:
        yield from (f"the key {key}" for key in sorted(seen.keys.keys() - dataknobs.KEYS))


def _for_dataknobs(seen: _Seen) -> Iterator[str]:
    if seen.keys.keys() >= dataknobs.RAG_KEYS:
        yield "adapter_name and query"
    yield from (f"the key {key}" for key in ("template", "extends") if key in seen.keys)
    if isinstance(seen.keys.get("messages"), list):
        yield "messages alone"


def _against_llm(seen: _Seen) -> Iterator[str]:
    if seen.has_front:
        yield "front matter"
    yield from (f"the key {key}" for key in sorted(seen.keys.keys() - llm_template.KEYS))


def _for_llm(seen: _Seen) -> Iterator[str]:
    yield from (f"the key {key}" for key in ("prompt", "system") if key in seen.keys)


_SIGNS: dict[Format, _Signs] = {
    Format.DOTPROMPT: _Signs(_against_dotprompt, _for_dotprompt),
    Format.PROMPTY: _Signs(_against_prompty, _for_prompty),
    Format.GITHUB: _Signs(_against_github, _for_github),
    Format.DATAKNOBS: _Signs(_against_dataknobs, _for_dataknobs),
    Format.LLM: _Signs(_against_llm, _for_llm),
}
"""For each format: reasons why a file is not of it, and why it could be; the first of each is told."""
