"""A parsed prompt document and the keys it may have; each refusal names the line of the key at fault.

    name, description, model, config, tools, input, output, metadata    as in Google Dotprompt
    template, messages                                                   the text
    defaults, validation                                                 the other way to say `input`
    tests                                                                cases; see `promptab.cases.case`
    promptab: version, bump, status, tags, extras, config                our own; also as `promptab.status:`

Dotprompt's front matter: https://google.github.io/dotprompt/reference/frontmatter/
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from promptab.errors import PromptFileError
from promptab.library.located import JsonPath, LocatedJson
from promptab.models import PromptType

OWN = "promptab"
OWN_KEYS = ("version", "bump", "status", "tags", "extras", "config")
INPUT_KEYS = ("schema", "default")
OUTPUT_KEYS = ("format", "schema")
MESSAGE_KEYS = ("role", "content")
CONFIG_KEYS = {"model": "model", "config": "parameters", "tools": "tools", "output": "output"}
"""Key of the document -> part of `PromptVersion.config`."""

_COMMON_KEYS = ("name", "description", "config", "input", "defaults", "validation", "metadata", OWN)
_CALL_KEYS = (*_COMMON_KEYS, "model", "tools", "output", "tests")
_KEYS: dict[PromptType, tuple[str, ...]] = {
    PromptType.SYSTEM: (*_CALL_KEYS, "template"),
    PromptType.USER: (*_CALL_KEYS, "template"),
    PromptType.MESSAGE: (*_CALL_KEYS, "template", "messages"),
    PromptType.MODEL: _CALL_KEYS,
    PromptType.CONFIG: _COMMON_KEYS,
}


class Document:
    """Typed access to the keys. A key without a value (null) counts as absent, save inside free maps."""

    def __init__(self, located: LocatedJson, *, path: str, prompt_type: PromptType) -> None:
        """Raises `PromptFileError` for a document that is no object, or has keys that nobody would read."""
        self.path = path
        self.prompt_type = prompt_type
        self._located = located
        self._dotted: dict[str, str] = {}
        root = {} if located.value is None else located.value
        if not isinstance(root, dict):
            self.refuse((), "expected keys with values, such as 'model: …'")
        self._root: dict[str, Any] = self._without_dots(root)
        self.only(_KEYS[prompt_type], (), self._root)
        self.only(OWN_KEYS, (OWN,), self.object(OWN))
        self.only(INPUT_KEYS, ("input",), self.object("input"))
        self.only(OUTPUT_KEYS, ("output",), self.object("output"))

    def text(self, *at: str) -> str | None:
        value = self.value(*at)
        if value is not None and not isinstance(value, str):
            self.refuse(at, f"{dotted(at)}: {_shown(value)} is not text; put it in quotes")
        return value

    def object(self, *at: str) -> dict[str, Any] | None:
        value = self.value(*at)
        if value is not None and not isinstance(value, dict):
            self.refuse(at, f"{dotted(at)}: {_shown(value)} is not a set of keys with values")
        return value

    def list(self, *at: str) -> list[Any] | None:
        value = self.value(*at)
        if value is not None and not isinstance(value, list):
            self.refuse(at, f"{dotted(at)}: {_shown(value)} is not a list")
        return value

    def flag(self, *at: str) -> bool:
        value = self.value(*at)
        if value is not None and not isinstance(value, bool):
            self.refuse(at, f"{dotted(at)}: {_shown(value)} is not true or false")
        return bool(value)

    def value(self, *at: str) -> Any:
        """The value under a key, or under a key of a key; None where it is absent."""
        *outer, key = at
        holder = self.object(*outer) if outer else self._root
        return None if holder is None else holder.get(key)

    def only(self, known: Collection[str], at: JsonPath, found: Mapping[str, Any] | None) -> None:
        """Refuse the keys that are not known, and say which was meant where that is clear."""
        for key in found or {}:
            if key not in known:
                where = f"under {dotted(at)}" if at else f"in a {self.prompt_type} prompt"
                remedy = _remedy(key, known, at_top=not at)
                self.refuse((*at, key), f"unknown key {key[:80]!r} {where}; {remedy}")

    def line(self, at: JsonPath) -> int | None:
        """The line of a key in the file; for absent keys, of what is around them."""
        if at[:1] == (OWN,) and len(at) > 1 and at[1] in self._dotted:
            at = (self._dotted[str(at[1])], *at[2:])
        return self._located.line(at)

    def text_line(self, at: JsonPath) -> int | None:
        """The line where a text begins that stands in the file line for line; None for texts that do not."""
        return self._located.text_lines.get(at)

    def refuse(self, at: JsonPath, message: str) -> NoReturn:
        raise PromptFileError(self.path, message, line=self.line(at))

    def _without_dots(self, root: dict[str, Any]) -> dict[str, Any]:
        """Move `promptab.status` and its like under `promptab`."""
        prefix = f"{OWN}."
        self._dotted = {key.removeprefix(prefix): key for key in root if key.startswith(prefix)}
        if not self._dotted:
            return root
        own = root.get(OWN) or {}
        if not isinstance(own, dict):
            self.refuse((OWN,), f"{OWN}: {_shown(own)} is not a set of keys with values")
        for inner, key in self._dotted.items():
            if inner in own:
                raise PromptFileError(
                    self.path, f"{key} is there twice, once under {OWN}:", line=self._located.line((key,))
                )
            own = own | {inner: root[key]}
        return {key: value for key, value in root.items() if not key.startswith(prefix)} | {OWN: own}


def dotted(at: JsonPath) -> str:
    return ".".join(map(str, at))


def _remedy(key: str, known: Collection[str], *, at_top: bool) -> str:
    if at_top and key in OWN_KEYS:
        return f"write it under {OWN}:"
    if close := difflib.get_close_matches(key[:80], known, n=1):
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(known)}" + ("; keys of your own go under metadata" if at_top else "")


def _shown(value: object) -> str:
    return f"{value!r:.80}"
