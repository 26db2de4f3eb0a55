"""What comes out of a foreign prompt file, and what is to be put into one."""

from __future__ import annotations

from typing import NamedTuple

from promptab.library import PromptSource
from promptab.models import Choices, PromptType


class Format(Choices):
    """The formats of others that promptab reads and writes."""

    DOTPROMPT = "dotprompt"
    PROMPTY = "prompty"
    GITHUB = "github"
    DATAKNOBS = "dataknobs"
    LLM = "llm"


class Wish(NamedTuple):
    """What the caller wants of a prompt that is read, over what its file says."""

    name: str | None = None
    prompt_type: PromptType | None = None


class Imported(NamedTuple):
    """One foreign file as promptab has it."""

    path: str
    format: Format
    source: PromptSource
    notes: tuple[str, ...] = ()
    """What the file says and promptab cannot hold, or holds in another way; one sentence each."""
    partials: tuple[str, ...] = ()
    """Names of the partials that it uses, which are prompts of type `user`; each stands in a file of its own."""


class Exported(NamedTuple):
    """One foreign file to be written."""

    path: str
    """Relative, with forward slashes."""
    text: str
    lost: tuple[str, ...] = ()
    """What the prompt says and the format cannot hold; one sentence each."""
