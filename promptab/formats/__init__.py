"""Prompt files of others: Dotprompt, Prompty, GitHub's, dataknobs' and llm's, to promptab's form and back."""

from promptab.formats.exchange import Exported, Format, Imported, Wish
from promptab.formats.files import read_foreign, read_path, write_foreign
from promptab.formats.inlining import whole_source

__all__ = [
    "Exported",
    "Format",
    "Imported",
    "Wish",
    "read_foreign",
    "read_path",
    "whole_source",
    "write_foreign",
]
