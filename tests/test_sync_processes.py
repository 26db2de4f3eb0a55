"""Two processes that push at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import promptab
from promptab import FileSystemPromptLibrary
from promptab.library import Lock
from promptab.sync import plan_sync, push

PUSH_FILES = Path(__file__).parent / "workers" / "push_files.py"
PROMPTS = 20


def folder(path: Path, text: str) -> Path:
    (path / "system").mkdir(parents=True)
    for number in range(PROMPTS):
        (path / "system" / f"prompt_{number}.md").write_text(text)
    return path


def push_at_once(url: str, folders: list[Path]) -> list[dict[str, str]]:
    """Push each folder in a process of its own; return per process: prompt -> "version True" or "None False"."""
    processes = [
        subprocess.Popen(
            [sys.executable, PUSH_FILES, url, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for path in folders
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    return [dict(line.split(" ", 1) for line in text.splitlines()) for text in printed]


async def test_two_processes_that_push_the_same_files_make_each_version_once(
    lasting_url: str, tmp_path: Path
) -> None:
    path = folder(tmp_path / "prompts", "Be kind.")
    async with promptab.open(lasting_url) as lab:
        first, second = push_at_once(lasting_url, [path, path])
        versions = await lab.versions.list_versions()
        assert first == second == {f"system/prompt_{n}": "1.0.0 True" for n in range(PROMPTS)}
        assert [version.version for version in versions] == ["1.0.0"] * PROMPTS
        assert (await plan_sync(lab, FileSystemPromptLibrary(path))).in_step


@pytest.mark.parametrize("known", [False, True], ids=["new prompts", "changed prompts"])
async def test_two_processes_that_push_different_contents_leave_one_and_name_the_other(
    lasting_url: str, tmp_path: Path, *, known: bool
) -> None:
    folders = [folder(tmp_path / side, "Be kind.") for side in ("one", "other")]
    async with promptab.open(lasting_url) as lab:
        for path in folders if known else []:
            library = FileSystemPromptLibrary(path)
            await push(lab, library, await plan_sync(lab, library))
        for path, text in zip(folders, ("Be brief.", "Be formal."), strict=True):
            for file in (path / "system").iterdir():
                file.write_text(text)
        outcomes = push_at_once(lasting_url, folders)
        number = "1.0.1" if known else "1.0.0"
        for n in range(PROMPTS):
            label = f"system/prompt_{n}"
            assert sorted(outcome[label] for outcome in outcomes) == [f"{number} True", "None False"]
            history = await lab.versions.get_version_history(f"prompt_{n}", "system")
            assert [version.version for version in history][-1:] == [number]
            assert len(history) == (2 if known else 1)
        for path, outcome in zip(folders, outcomes, strict=True):
            locked = Lock.read(path / "promptab.lock").entries
            won = {label for label, said in outcome.items() if said.endswith("True")}
            assert won == {f"{e.prompt_type}/{e.name}" for e in locked if not known or e.version == number}
