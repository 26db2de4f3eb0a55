"""A version with the texts that it includes put in: what leaves the store takes along what it was pinned to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, nodes

from promptab.formats.jinja_tree import check_size
from promptab.library import PromptSource
from promptab.models import PromptVersion
from promptab.templates import Limits
from promptab.templates.syntax import parse

# only its lexer is used: nothing is ever compiled or rendered by it
_LEXER = Environment(keep_trailing_newline=True, autoescape=False)  # noqa: S701
_ASSIGNING = (nodes.Assign, nodes.AssignBlock, nodes.Macro)


def whole_source(version: PromptVersion, versions: Mapping[str, PromptVersion]) -> PromptSource:
    """Return what a version declares, without includes. `versions` holds what it includes, by id.

    Number, status and tags stay behind: they are the store's. Raises `TemplateLimitError` where a text becomes larger
    than a template may be.
    """
    inliner = _Inliner(versions)
    return PromptSource(
        name=version.name,
        prompt_type=version.prompt_type,
        template=inliner.inlined(version.template, version),
        messages=tuple(
            message.model_copy(update={"content": inliner.inlined(message.content, version)})
            for message in version.messages
        ),
        defaults=inliner.defaults(version),
        validation=version.validation,
        config=version.config,
        metadata=version.metadata,
    )


class _Inliner:
    """Puts texts in, each included version worked out once: two includes of two includes would double at every level."""

    def __init__(self, versions: Mapping[str, PromptVersion]) -> None:
        self.versions = versions
        self.bodies: dict[str, str] = {}
        self.merged: dict[str, dict[str, Any]] = {}

    def defaults(self, version: PromptVersion) -> dict[str, Any]:
        """As a render takes them: outer before inner, earlier before later."""
        if version.version_id not in self.merged:
            merged = dict(version.defaults)
            for version_id in version.includes.values():
                merged = self.defaults(self.versions[version_id]) | merged
            self.merged[version.version_id] = merged
        return self.merged[version.version_id]

    def inlined(self, source: str, version: PromptVersion) -> str:
        if not version.includes:
            return source
        written: list[str] = []
        tag: list[tuple[str, str]] = []
        for _, kind, value in _LEXER.lex(source):
            if kind != "block_begin" and not tag:
                written.append(value)
                continue
            tag.append((kind, value))
            if kind == "block_end":
                written.append(self.tag(tag, version))
                check_size("".join(written), label=version.label)
                tag = []
        return "".join(_apart(written))

    def tag(self, tag: list[tuple[str, str]], version: PromptVersion) -> str:
        words = [value for kind, value in tag if kind in {"name", "string"}]
        if words[:1] == ["include"]:
            return self.body(self.versions[version.includes[words[1][1:-1]]])
        return "".join(value for _, value in tag)

    def body(self, version: PromptVersion) -> str:
        if version.version_id not in self.bodies:
            body = self.inlined(version.template, version)
            tree = parse(version.template, name=version.label, limits=Limits()).tree
            # what an included text sets is its own, so it is given a scope where it sets anything
            if next(tree.find_all(_ASSIGNING), None) is not None:
                body = "".join(_apart(["{% with %}", body, "{% endwith %}"]))
            self.bodies[version.version_id] = body
        return self.bodies[version.version_id]


def _apart(pieces: list[str]) -> list[str]:
    """Keep a brace at the end of one piece from becoming a tag with the beginning of the next."""
    return [
        f"{piece[:-1]}{{{{ '{{' }}}}" if piece.endswith("{") and following[:1] in {"{", "%", "#"} else piece
        for piece, following in zip(pieces, [*pieces, ""][1:], strict=True)
    ]
