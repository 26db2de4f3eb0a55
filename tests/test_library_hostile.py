"""A folder made by an enemy: nothing outside it is read or written, nothing waits, everything is reported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from promptab.errors import PromptFileError
from promptab.library import FileSystemPromptLibrary, LibraryContents, PromptSource
from promptab.models import PromptType

CANARY = "canary-7f3a"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the library that nothing may reach."""
    outside = tmp_path / "outside"
    (outside / "system").mkdir(parents=True)
    (outside / "secret.md").write_text(CANARY)
    (outside / "system" / "secret.md").write_text(CANARY)
    return outside


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    prompts = tmp_path / "prompts"
    for folder in ("system", "user"):
        (prompts / folder).mkdir(parents=True)
    (prompts / "user" / "good.md").write_text("Hi")
    return prompts


def only_good(prompts: Path) -> LibraryContents:
    """Load, and make sure that the good file is there and nothing leaked."""
    contents = FileSystemPromptLibrary(prompts).load()
    assert list(contents.prompts) == [(PromptType.USER, "good")]
    assert CANARY not in repr(contents)
    return contents


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


LINKS = {
    "file": "../../outside/secret.md",
    "folder": "../../outside",
    "loop": "a.md",
    "dangling": "../../outside/nothing.md",
    "process": "/proc/self/environ",
    "device": "/dev/zero",
    "inside": "../user/good.md",
}


@pytest.mark.parametrize("target", LINKS.values(), ids=LINKS)
def test_link_in_place_of_a_file_is_reported_and_not_followed(
    prompts: Path, outside: Path, target: str
) -> None:
    (prompts / "system" / "a.md").symlink_to(target)
    [problem] = only_good(prompts).problems
    assert problem.path == "system/a.md"
    assert "symbolic link" in str(problem)
    with pytest.raises(PromptFileError, match="symbolic link"):
        FileSystemPromptLibrary(prompts).get("a", "system")


@pytest.mark.parametrize("target", ["../outside/system", "../outside", "message", "../nothing", "/", "user"])
def test_link_in_place_of_a_type_folder_is_reported_and_not_followed(
    prompts: Path, outside: Path, target: str
) -> None:
    (prompts / "message").symlink_to(target)
    [problem] = only_good(prompts).problems
    assert problem.path == "message"
    assert "not a folder" in str(problem)
    with pytest.raises(PromptFileError, match="not a folder"):
        FileSystemPromptLibrary(prompts).get("secret", "message")


@pytest.mark.parametrize("where", ["", "system/"])
def test_link_with_another_name_is_reported(prompts: Path, outside: Path, where: str) -> None:
    (prompts / where / "more").symlink_to(outside)
    [problem] = only_good(prompts).problems
    assert problem.path == f"{where}more"


@pytest.mark.parametrize("place", ["system/a.md", "system/pipe", "pipe", "message"])
def test_pipe_is_reported_and_not_waited_for(prompts: Path, place: str) -> None:
    os.mkfifo(prompts / place)
    [problem] = only_good(prompts).problems
    assert problem.path == place


def test_pipe_that_somebody_writes_into_is_not_read(prompts: Path) -> None:
    pipe = prompts / "system" / "a.md"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(writer, CANARY.encode())
        [problem] = only_good(prompts).problems
    finally:
        os.close(writer)
    assert "not a regular file" in str(problem)


@pytest.mark.parametrize("suffix", [".md", ".yaml", ".json"])
def test_folder_with_the_name_of_a_file_is_reported(prompts: Path, suffix: str) -> None:
    (prompts / "system" / f"a{suffix}").mkdir()
    [problem] = only_good(prompts).problems
    assert "not a regular file" in str(problem)


def test_name_that_no_terminal_should_see_is_shown_escaped(prompts: Path) -> None:
    for name in (b"\xff.md", b"\x1b[31m.md", b"a\n.md", "a\u2024\u2024b.md".encode(), "\ufb01.md".encode()):
        (prompts / "system" / os.fsdecode(name)).write_bytes(b"Hi")
    problems = only_good(prompts).problems
    assert len(problems) == 5
    for problem in problems:
        assert str(problem).isprintable()
        assert str(problem).encode()


@pytest.mark.parametrize(
    "name",
    ["..", "../a", "../../outside/secret", "%2e%2e%2fa", "a\0", "/etc/passwd", "\u2024\u2024/a", "", "."],
)
def test_name_that_leads_elsewhere_finds_nothing(prompts: Path, outside: Path, name: str) -> None:
    library = FileSystemPromptLibrary(prompts)
    assert library.get(name, "system") is None
    assert library.path_of(name, "system") is None


@pytest.mark.parametrize("target", ["../outside", "../nothing"])
def test_write_into_a_linked_folder_is_refused(prompts: Path, outside: Path, target: str) -> None:
    (prompts / "model").symlink_to(target)
    source = PromptSource(name="a", prompt_type=PromptType.MODEL, config={"model": "m"})
    with pytest.raises(PromptFileError, match="not a folder"):
        FileSystemPromptLibrary(prompts).write(source)
    assert names_in(outside) == ["secret.md", "system"]
    assert not (prompts.parent / "nothing").exists()


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_write_over_something_that_is_no_file_is_refused(prompts: Path, outside: Path, kind: str) -> None:
    place = prompts / "system" / "secret.md"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to(outside / ("secret.md" if kind == "link" else "new.md"))
    source = PromptSource(name="secret", prompt_type=PromptType.SYSTEM, template="Hi")
    with pytest.raises(PromptFileError, match=r"system/secret\.md"):
        FileSystemPromptLibrary(prompts).write(source)
    assert (outside / "secret.md").read_text() == CANARY
    assert names_in(outside) == ["secret.md", "system"]
    assert names_in(prompts / "system") == ["secret.md"]


def test_write_that_fails_leaves_the_old_file_and_nothing_else(prompts: Path) -> None:
    # A limit on file sizes stands in for a full disk; it has to be set in a process of its own.
    code = (
        "import resource, signal, sys\n"
        "from promptab.errors import PromptFileError\n"
        "from promptab.library import FileSystemPromptLibrary, PromptSource\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "library = FileSystemPromptLibrary(sys.argv[1])\n"
        "library.get('good', 'user')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n"
        "    library.write(PromptSource(name='good', prompt_type='user', template='x' * 5000))\n"
        "except PromptFileError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(prompts)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("user/good.md: cannot be written")
    assert names_in(prompts / "user") == ["good.md"]
    assert (prompts / "user" / "good.md").read_text() == "Hi"


def test_huge_file_is_refused_unread(prompts: Path) -> None:
    with (prompts / "system" / "a.md").open("wb") as file:
        file.truncate(10**12)
    [problem] = only_good(prompts).problems
    assert "larger than" in str(problem)


@pytest.mark.parametrize("folder", ["", "system"])
def test_folder_with_too_many_entries_is_refused_as_a_whole(prompts: Path, folder: str) -> None:
    for index in range(10_001):
        (prompts / folder / f"a{index}.md").touch()
    library = FileSystemPromptLibrary(prompts)
    if folder:
        [problem] = only_good(prompts).problems
        assert problem.path == folder
        assert "more than 10000" in str(problem)
    else:
        with pytest.raises(ValueError, match="prompt_dir"):
            library.load()


BOMBS = {
    "aliases": "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b]\n",
    "nested flow": "metadata: " + "[" * 400_000,
    "nested maps": "metadata: " + "{a: " * 200_000,
    "nested lists": "metadata: " + "- " * 400_000,
    "nested keys": "? " * 400_000,
    "indented": "metadata:\n" + "".join(" " * depth + "a:\n" for depth in range(1, 1_300)),
    "many keys": "".join(f"k{index}:\n" for index in range(100_000)),
    "many items": "tools: [" + "1," * 400_000 + "]",
    "long scalar": "template: " + "a" * 900_000,
    "long key": "a" * 900_000 + ": 1",
    "long number": "metadata: {a: " + "9" * 900_000 + "}",
    "long directive": "%YAML 1." + "1" * 900_000 + "\n--- a\n",
    "comments": "#\n" * 450_000,
    "tags": "metadata: " + "!!str " * 150_000,
    "anchors": "metadata: " + "&a " * 300_000,
    "quotes": "metadata: " + "'" * 900_001,
    "escapes": 'metadata: "' + "\\n" * 400_000,
    "block": "metadata: |\n" + " a\n" * 300_000,
    "python tags": "metadata: !!python/object/new:os.system [echo]\n",
    "colons": "a:" * 450_000,
    "questions": "?" * 900_000,
    "dots": "metadata: " + "1." * 400_000,
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("place", ["system/a.yaml", "system/a.md", "system/a.json"])
def test_bomb_becomes_a_problem(prompts: Path, place: str, bomb: str) -> None:
    (prompts / place).write_text(f"---\n{bomb}\n---\n" if place.endswith(".md") else bomb)
    [problem] = only_good(prompts).problems
    assert problem.path == place
    assert len(str(problem)) < 1_000


JSON_BOMBS = {
    "lists": "[" * 400_000,
    "objects": '{"a":' * 180_000,
    "digits": "1" * 900_000,
    "exponent": "1e" + "9" * 900_000,
    "string": '{"template": "' + "a" * 900_000,
    "keys": "{" + ",".join(f'"{index}":1' for index in range(80_000)) + "}",
    "blanks": " " * 900_000,
    "lines": "\n" * 900_000 + "x",
    "escapes": '{"metadata": "' + "\\u0061" * 140_000 + '"}',
}


@pytest.mark.parametrize("bomb", JSON_BOMBS.values(), ids=JSON_BOMBS)
def test_json_bomb_becomes_a_problem(prompts: Path, bomb: str) -> None:
    (prompts / "system" / "a.json").write_text(bomb)
    [problem] = only_good(prompts).problems
    assert problem.path == "system/a.json"
    assert len(str(problem)) < 1_000


def test_reading_runs_nothing_that_a_tag_names(prompts: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for index, tag in enumerate(
        ("python/object/apply:os.mkdir", "python/object/new:os.mkdir", "python/name:os.system")
    ):
        (prompts / "system" / f"a{index}.yaml").write_text(f"metadata: !!{tag} ['{mark}']\ntemplate: a\n")
    assert len(only_good(prompts).problems) == 3
    assert not mark.exists()


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file_is_a_problem(prompts: Path) -> None:
    path = prompts / "system" / "a.md"
    path.write_text("Hi")
    path.chmod(0)
    [problem] = only_good(prompts).problems
    assert "cannot be read" in str(problem)
