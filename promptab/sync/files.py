"""The files of a folder as a plan needs them: checked, with their includes, in the order of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath
from typing import NamedTuple, Self

from promptab.content import Content, Reference, check_content, content_hash, parse_reference
from promptab.errors import InvalidInputError, PromptFileError, TemplateError
from promptab.library import LibraryContents, PromptSource
from promptab.library.listing import SUFFIXES, TYPE_FOLDERS
from promptab.models import PromptType
from promptab.sync.items import Key, label_of

Pin = Callable[[Reference], str | None]
"""From an include to the content hash of what it means; None where nothing does."""


class LocalPrompt(NamedTuple):
    """A usable file."""

    path: str
    source: PromptSource
    content: Content
    references: Mapping[str, Reference]
    """Include as written in the template -> what it refers to."""

    def hash(self, pin: Pin) -> str:
        """Return the content hash with every include pinned. `TemplateError` for one that `pin` does not know."""
        hashes = {}
        for text, reference in self.references.items():
            pinned = pin(reference)
            if pinned is None:
                label = label_of((reference.prompt_type, reference.name))
                raise TemplateError(
                    f"cannot include {text!r}: no active version matches; push {label} first",
                    template=self.path,
                )
            hashes[text] = pinned
        return content_hash(self.content, hashes)


class LocalFiles(NamedTuple):
    """A folder, sorted into what can be used and what cannot."""

    prompts: Mapping[Key, LocalPrompt]
    """Included prompts before those that include them."""
    unusable: Mapping[Key, str]
    """Prompts whose file cannot be used, with the reason."""
    closed: frozenset[PromptType]
    """Types whose folder cannot be looked into: nobody knows which files are there."""
    problems: tuple[str, ...]
    """What is wrong beside the files of single prompts."""

    @classmethod
    def of(cls, contents: LibraryContents) -> Self:
        unusable, closed, problems = _sorted_problems(contents.problems)
        prompts: dict[Key, LocalPrompt] = {}
        for key, (path, source) in contents.prompts.items():
            try:
                prompts[key] = _local(path, source)
            except TemplateError as error:
                unusable[key] = str(error)
            except InvalidInputError as error:
                unusable[key] = f"{path}: {error}"
        order, cycles = _in_include_order(prompts)
        return cls({key: prompts[key] for key in order}, unusable | cycles, closed, problems)

    def unusable_file(self, key: Key) -> str | None:
        """Return why the prompt's file cannot be used; None where it can, or where there is none.

        Names that differ in case only are one file on many machines, so they are blocked together.
        """
        if key[0] in self.closed:
            return f"the folder of its type cannot be read ({key[0]}/)"
        if key in self.unusable:
            return self.unusable[key]
        lower = (key[0], key[1].lower())
        return next(
            (why for other, why in self.unusable.items() if (other[0], other[1].lower()) == lower), None
        )


def _local(path: str, source: PromptSource) -> LocalPrompt:
    content = check_content(
        source.prompt_type,
        source.messages or source.template,
        defaults=source.defaults,
        validation=source.validation,
        config=source.config,
    )
    references = {text: parse_reference(text, template=path) for text in content.references(path)}
    return LocalPrompt(path, source, content, references)


def _sorted_problems(
    problems: tuple[PromptFileError, ...],
) -> tuple[dict[Key, str], frozenset[PromptType], tuple[str, ...]]:
    unusable: dict[Key, str] = {}
    closed: set[PromptType] = set()
    others: list[str] = []
    for problem in problems:
        path = PurePosixPath(problem.path)
        prompt_type = TYPE_FOLDERS.get(path.parts[0])
        if prompt_type is not None and len(path.parts) == 2 and path.suffix in SUFFIXES:
            unusable.setdefault((prompt_type, path.stem), str(problem))
            continue
        if prompt_type is not None and len(path.parts) == 1:
            closed.add(prompt_type)
        others.append(str(problem))
    return unusable, frozenset(closed), tuple(others)


def _in_include_order(prompts: Mapping[Key, LocalPrompt]) -> tuple[list[Key], dict[Key, str]]:
    """Return the keys with included prompts first, and the prompts that include themselves with the reason."""
    graph = {
        key: [
            included
            for reference in prompt.references.values()
            if (included := (reference.prompt_type, reference.name)) in prompts
        ]
        for key, prompt in prompts.items()
    }
    cycles: dict[Key, str] = {}
    while True:
        try:
            return list(TopologicalSorter(graph).static_order()), cycles
        except CycleError as error:
            # graphlib walks from the included to the including; people read it the other way round
            walk: list[Key] = list(reversed(error.args[1]))
            shown = " -> ".join(map(label_of, walk))
            cycles.update({key: f"{prompts[key].path}: includes itself: {shown}" for key in walk})
            graph = {
                key: [included for included in includes if included not in cycles]
                for key, includes in graph.items()
                if key not in cycles
            }
