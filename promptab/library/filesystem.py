"""The folder of prompt files: `prompts/<type>/<name>.md`, `.yaml`, `.yml` or `.json`.

Nothing outside the folder is ever read or written: links, pipes and devices are refused.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from promptab.errors import InvalidInputError, PromptFileError
from promptab.library.disk import read_regular_file, replace_file
from promptab.library.listing import TYPE_FOLDERS, Listing, list_prompts
from promptab.library.lock import LOCK_NAME
from promptab.library.source import LibraryContents, PromptFile, PromptSource, check_source
from promptab.models import PromptType

MAX_FILE_BYTES = 1_000_000


class FileSystemPromptLibrary:
    """Prompt files in a folder. The constructor does no I/O; a folder need not be there yet."""

    def __init__(self, prompt_dir: Path | str) -> None:
        self.prompt_dir = Path(prompt_dir)

    @property
    def lock_path(self) -> Path:
        return self.prompt_dir / LOCK_NAME

    def load(self) -> LibraryContents:
        """Read every prompt. A file that cannot be used becomes a problem, and the others still load.

        Raises:
            InvalidInputError: `prompt_dir` is not a folder that can be read.
        """
        types = list(PromptType)
        listing = list_prompts(self.prompt_dir, types)
        problems = listing.problems
        prompts: dict[tuple[PromptType, str], PromptFile] = {}
        for prompt_type, name in sorted(listing.files, key=lambda key: (types.index(key[0]), key[1])):
            path = listing.files[prompt_type, name]
            try:
                prompts[prompt_type, name] = PromptFile(path, self._read(path, prompt_type, name))
            except PromptFileError as problem:
                problems.append(problem)
        problems.sort(key=lambda problem: (problem.path, problem.line or 0))
        return LibraryContents(prompts, tuple(problems))

    def get(self, name: str, prompt_type: PromptType | str) -> PromptSource | None:
        """Read one prompt; None where it has no file.

        Raises:
            PromptFileError: its file or its folder cannot be used, or it has several files.
            InvalidInputError: `prompt_dir` is not a folder that can be read.
        """
        prompt_type = PromptType.parse(prompt_type)
        path = _path_in(list_prompts(self.prompt_dir, [prompt_type]), prompt_type, name)
        return None if path is None else self._read(path, prompt_type, name)

    def path_of(self, name: str, prompt_type: PromptType | str) -> Path | None:
        """The file of a prompt, readable or not; None where it has none. Raises as `get` does."""
        prompt_type = PromptType.parse(prompt_type)
        path = _path_in(list_prompts(self.prompt_dir, [prompt_type]), prompt_type, name)
        return None if path is None else self.prompt_dir / path

    def write(self, source: PromptSource) -> Path:
        """Put a prompt into its file, as a whole or not at all, and return the file.

        An existing file keeps its place and format. If it already declares this source it is left as it is,
        comments included; otherwise all of it is replaced. A new text becomes Markdown, all else YAML.

        Raises:
            InvalidInputError: the source is not one that a file can declare; nothing was written.
            PromptFileError: the prompt has several files, its folder is a link, or the disk refuses.
        """
        from promptab.library.formats import default_suffix, prompt_bytes  # noqa: PLC0415 - loads PyYAML

        source = check_source(source)
        listing = list_prompts(self.prompt_dir, [source.prompt_type])
        path = _path_in(listing, source.prompt_type, source.name)
        if path is None:
            _refuse_twin(listing, source)
            path = f"{self._folder_for(source.prompt_type)}/{source.name}{default_suffix(source)}"
        elif self._declares(path, source):
            return self.prompt_dir / path
        data = prompt_bytes(source, path=path, suffix=PurePosixPath(path).suffix)
        if len(data) > MAX_FILE_BYTES:
            raise InvalidInputError(
                "source", source.label, f"a prompt whose file has at most {MAX_FILE_BYTES} bytes"
            )
        target = self.prompt_dir / path
        try:
            target.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise PromptFileError(path, f"its folder cannot be made: {error.strerror}") from error
        replace_file(target, data, shown=path)
        return target

    def _read(self, path: str, prompt_type: PromptType, name: str) -> PromptSource:
        from promptab.library.formats import read_prompt  # noqa: PLC0415 - loads PyYAML, which `import promptab` must not

        data = read_regular_file(self.prompt_dir / path, shown=path, limit=MAX_FILE_BYTES)
        return read_prompt(
            data, path=path, suffix=PurePosixPath(path).suffix, prompt_type=prompt_type, name=name
        )

    def _declares(self, path: str, source: PromptSource) -> bool:
        try:
            return self._read(path, source.prompt_type, source.name).fingerprint == source.fingerprint
        except PromptFileError:
            return False

    def _folder_for(self, prompt_type: PromptType) -> str:
        """The folder for a new file: the one that is there already, else the one named like the type."""
        names = [folder for folder, of_type in TYPE_FOLDERS.items() if of_type is prompt_type]
        return next((folder for folder in names if (self.prompt_dir / folder).exists()), names[0])


def _path_in(listing: Listing, prompt_type: PromptType, name: str) -> str | None:
    if clash := listing.clashes.get((prompt_type, name.lower())):
        raise clash
    path = listing.files.get((prompt_type, name))
    if path is None and listing.closed:
        raise listing.closed[0]
    return path


def _refuse_twin(listing: Listing, source: PromptSource) -> None:
    for _, name in listing.files:
        if name.lower() == source.name.lower():
            bound = f"different from the existing {name!r} in more than upper and lower case"
            raise InvalidInputError("name", source.name, bound, "on many machines the two would be one file")
