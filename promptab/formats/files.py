"""Foreign files on disk: reading one, or all of a folder, with the partials that they use; and writing one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from promptab.errors import InvalidInputError, PromptFileError
from promptab.formats import dataknobs, dotprompt, github, llm_template, prompty
from promptab.formats.exchange import Exported, Format, Imported, Wish
from promptab.formats.foreign import ForeignFile
from promptab.formats.sniffing import sniff
from promptab.library import PromptSource
from promptab.library.disk import read_regular_file
from promptab.library.listing import printable
from promptab.models import PromptType

MAX_FILE_BYTES = 1_000_000
MAX_FILES = 1_000
_SUFFIXES = frozenset({".prompt", ".prompty", ".yaml", ".yml", ".json"})


class _Codec(NamedTuple):
    read: Callable[[ForeignFile, Wish], Imported]
    write: Callable[[PromptSource], Exported]


_CODECS: dict[Format, _Codec] = {
    Format.DOTPROMPT: _Codec(dotprompt.read, dotprompt.write),
    Format.PROMPTY: _Codec(prompty.read, prompty.write),
    Format.GITHUB: _Codec(github.read, github.write),
    Format.DATAKNOBS: _Codec(dataknobs.read, dataknobs.write),
    Format.LLM: _Codec(llm_template.read, llm_template.write),
}


def read_foreign(data: bytes, *, path: str, form: Format | None = None, wish: Wish | None = None) -> Imported:
    """Read the bytes of one foreign file; without `form`, its format is told by its content.

    Args:
        data: at most a prompt; UTF-8, with any kind of line ends.
        path: what to call it in refusals; its last part names the prompt where the file does not.
        form: the format, where it is known.
        wish: a name and a type that go before those of the file.

    Raises:
        PromptFileError: with the line of what cannot be read or held, or naming the formats tried.
        InvalidInputError: the wish does not fit the file.
    """
    file = ForeignFile.of(data, path=path)
    return _CODECS[sniff(file) if form is None else form].read(file, wish or Wish())


def write_foreign(source: PromptSource, form: Format) -> Exported:
    """Write a prompt without includes as a file of that format.

    Raises:
        TemplateError: with the line of a template that the format cannot say.
        InvalidInputError: a prompt that the format has no place for.
    """
    return _CODECS[form].write(source)


def read_path(path: Path, *, form: Format | None = None, wish: Wish | None = None) -> tuple[Imported, ...]:
    """Read a file, or all files of a folder, those of a dataknobs library in its subfolders.

    The partials of a Dotprompt file are read from beside it, and come before what uses them.

    Raises:
        PromptFileError: for the first file that cannot be read, naming the others that cannot.
        InvalidInputError: no such file or folder, or one name for several files.
    """
    wish = wish or Wish()
    if not path.is_dir():
        return tuple(_with_partials(path, form, wish, {}))
    files = list(_files_in(path))
    if not files:
        raise InvalidInputError(
            "PATH", str(path), f"a folder with files that end in {', '.join(sorted(_SUFFIXES))}"
        )
    if wish.name is not None and len(files) > 1:
        raise InvalidInputError("name", wish.name, f"for one file; {path} has {len(files)}")
    seen: dict[Path, None] = {}
    found: list[Imported] = []
    problems: list[PromptFileError] = []
    for file in files:
        # in a folder that sorts its prompts, the folders say what is in them
        library = Format.DATAKNOBS if file.parent != path else None
        try:
            found += _with_partials(file, form or library, wish, seen)
        except PromptFileError as problem:
            problems.append(problem)
    if problems:
        others = ", ".join(problem.path for problem in problems[1:9])
        first = problems[0]
        told = str(first).removeprefix(f"{first.path}:{first.line}: ").removeprefix(f"{first.path}: ")
        more = f" (and {len(problems) - 1} more files cannot be read: {others})" if others else ""
        raise PromptFileError(first.path, told + more, line=first.line)
    return tuple(found)


def _with_partials(path: Path, form: Format | None, wish: Wish, seen: dict[Path, None]) -> Iterator[Imported]:
    """What a file declares, after the partials that it uses; nothing for one that was read before."""
    if path in seen:
        return
    seen[path] = None
    is_partial = path.name.startswith("_") and path.suffix == ".prompt"
    data = read_regular_file(path, shown=printable(str(path)), limit=MAX_FILE_BYTES)
    imported = read_foreign(
        data, path=str(path), form=Format.DOTPROMPT if is_partial and form is None else form, wish=wish
    )
    missing: list[str] = []
    for name in imported.partials:
        beside = path.with_name(f"_{name}.prompt")
        if beside.exists():
            yield from _with_partials(beside, Format.DOTPROMPT, Wish(name, PromptType.USER), seen)
        else:
            missing.append(
                f"the partial {name} is not beside the file: it includes the prompt user/{name} of the store"
            )
    yield imported._replace(notes=(*imported.notes, *missing))


def _files_in(folder: Path) -> Iterator[Path]:
    """The files of a folder in the order of their names; of a dataknobs library those in its folders."""
    libraries = [folder / name for name in dataknobs.FOLDERS if (folder / name).is_dir()]
    found = [
        file
        for each in libraries or [folder]
        for file in sorted(each.iterdir())
        if file.suffix in _SUFFIXES and not file.name.startswith(".")
    ]
    if len(found) > MAX_FILES:
        raise InvalidInputError("PATH", str(folder), f"a folder with at most {MAX_FILES} prompts")
    yield from found
