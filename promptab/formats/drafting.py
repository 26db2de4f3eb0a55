"""From the parts of a foreign file to a `PromptSource`, by the checks that promptab's own files pass."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from promptab.checks import check_name
from promptab.errors import InvalidInputError
from promptab.formats.exchange import Wish
from promptab.formats.foreign import ForeignFile
from promptab.library import PromptSource
from promptab.library.document import Document
from promptab.library.located import JsonPath, LocatedJson
from promptab.library.reading import read_source
from promptab.models import PromptType

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)
_OF_ROLE = {"system": PromptType.SYSTEM, "user": PromptType.USER}


class Part(NamedTuple):
    """One message of a foreign file, its template already in Jinja2."""

    role: str
    content: str
    line: int | None = None
    """Where the content begins, if it stands in the file line for line."""


def drafted(
    file: ForeignFile,
    wish: Wish,
    parts: Sequence[Part],
    declared: Mapping[str, Any],
    places: Mapping[JsonPath, JsonPath],
) -> PromptSource:
    """Read what a foreign file declares, put into the keys of promptab's own documents.

    Args:
        file: where it stands, for refusals.
        wish: a name and a type that go before those of the file.
        parts: its messages; one alone in the role `system` or `user` becomes a text prompt.
        declared: promptab's keys with their values, without the text.
        places: path in the foreign document -> path among promptab's keys, for the lines of refusals.

    Raises:
        PromptFileError: with the line of the part that promptab cannot hold.
        InvalidInputError: the wish does not fit the file.
    """
    kind = _kind(file, wish, parts, declared)
    value = dict(declared)
    lines = file.keys.lines_of(places)
    text_lines: dict[JsonPath, int] = {}
    if kind in {PromptType.SYSTEM, PromptType.USER}:
        value["template"] = parts[0].content
        _locate(("template",), parts[0], lines, text_lines)
    elif kind is PromptType.MESSAGE:
        value["messages"] = [{"role": part.role, "content": part.content} for part in parts]
        for index, part in enumerate(parts):
            _locate(("messages", index, "content"), part, lines, text_lines)
    located = LocatedJson(value, lines, text_lines)
    document = Document(located, path=file.path, prompt_type=kind)
    return read_source(document, name=_name(file, wish))


def drafted_config(file: ForeignFile, wish: Wish, config: Mapping[str, Any]) -> PromptSource:
    """The prompt of type `config` that has these values. Raises as `drafted`."""
    if wish.prompt_type not in {None, PromptType.CONFIG}:
        raise InvalidInputError("type", str(wish.prompt_type), f"config, for {file.path}")
    located = LocatedJson({"config": dict(config)}, file.keys.lines_of({(): ("config",)}), {})
    document = Document(located, path=file.path, prompt_type=PromptType.CONFIG)
    return read_source(document, name=_name(file, wish))


def title_of(file: ForeignFile) -> str | None:
    """The name that a file gives itself, where it is none that promptab can use: it is kept in the metadata."""
    name = file.keys.text("name")
    return None if name is None or _NOT_IN_NAMES.search(name) is None else name


def left_over(form: str, kept: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata with what only that format knows, under its name."""
    told = {key: value for key, value in kept.items() if value not in (None, {}, [])}
    return {**metadata, form: told} if told else dict(metadata)


def _kind(file: ForeignFile, wish: Wish, parts: Sequence[Part], declared: Mapping[str, Any]) -> PromptType:
    wanted = wish.prompt_type
    if not parts:
        found = PromptType.MODEL if declared.get("model") or declared.get("config") else None
        if found is None or wanted not in {None, PromptType.MODEL}:
            file.keys.refuse((), "has no text, so it is no prompt")
        return found
    if wanted is None:
        return _OF_ROLE.get(parts[0].role, PromptType.MESSAGE) if len(parts) == 1 else PromptType.MESSAGE
    if wanted is not PromptType.MESSAGE and (not wanted.has_template or len(parts) > 1):
        held = f"{len(parts)} messages" if len(parts) > 1 else "a text"
        raise InvalidInputError("type", wanted.value, f"a type for {file.path}, which holds {held}")
    return wanted


def _name(file: ForeignFile, wish: Wish) -> str:
    """The name as wished, else as the file says, else of the file; what no name may hold becomes `_`."""
    if wish.name is not None:
        return check_name("name", wish.name)
    said = (file.keys.text("name") or "").strip() or file.stem
    plain = _NOT_IN_NAMES.sub("_", said).strip("_.-")
    lowered = plain.lower() if plain != said else plain
    try:
        return check_name("name", lowered)
    except InvalidInputError:
        raise InvalidInputError(
            "name", said, "a name that promptab can use", "give one with --name"
        ) from None


def _locate(at: JsonPath, part: Part, lines: dict[JsonPath, int], text_lines: dict[JsonPath, int]) -> None:
    if part.line is not None:
        lines[at] = text_lines[at] = part.line
