"""Every command and output in README.md is real: its blocks are run in order and held against what they show."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from promptab.cli.experiment import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf8")


class Block(NamedTuple):
    language: str
    text: str
    line: int


def blocks() -> list[Block]:
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [Block(match[1], match[2], README[: match.start()].count("\n") + 1) for match in found]


def environment(folder: Path) -> dict[str, str]:
    """What a newcomer's shell has, with the scripts of this interpreter's environment first."""
    scripts = Path(sys.executable).parent
    return {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "COLUMNS": "100",
        "USER": "ada",
        "LOGNAME": "ada",
    }


def test_python_blocks_print_what_stands_below_them(tmp_path: Path) -> None:
    every = blocks()
    pairs = [
        (code, output)
        for code, output in itertools.pairwise(every)
        if code.language == "python" and output.language == "text"
    ]
    assert pairs, "README.md shows no Python with its output"
    for code, output in pairs:
        done = subprocess.run(
            [sys.executable, "-c", code.text],
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == output.text, f"README.md, line {output.line}"


def test_console_blocks_print_what_they_show(tmp_path: Path) -> None:
    """The blocks are one session in a copy of the prompts; `…` stands for what differs from run to run."""
    shutil.copytree(ROOT / "prompts", tmp_path / "prompts", ignore=shutil.ignore_patterns("promptab.lock"))
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    commands = [
        (match[1], match[2], block.line)
        for block in blocks()
        if block.language == "console"
        for match in re.finditer(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE)
    ]
    assert commands, "README.md shows no console session"
    for command, shown, line in commands:
        done = subprocess.run(
            shlex.split(command),
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        pattern = "".join(".*?" if part == "…" else re.escape(part) for part in re.split("(…)", plain(shown)))
        assert done.returncode == 0, f"README.md, line {line}: {command}\n{done.stderr}"
        assert re.fullmatch(pattern, plain(done.stdout), re.DOTALL), (
            f"README.md, line {line}: {command}\n{done.stdout}"
        )


def plain(output: str) -> str:
    """Leave out what a page does not show or what differs from day to day: spaces at the end, empty lines, times."""
    lines = (line.rstrip() for line in output.splitlines())
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", "\n".join(line for line in lines if line))


def test_statistics_page_names_only_commands_that_there_are() -> None:
    page = (ROOT / "promptab" / "stats" / "README.md").read_text(encoding="utf8")
    questions = page.partition("## Other questions")[2].partition("\n## ")[0]
    named = set(re.findall(r"\| `([a-z-]+)", questions))
    assert named == {"sample-size", "replay", "interaction", "promote-winner"}
    command: Any = typer.main.get_command(app)
    assert named <= set(command.commands)


def test_readme_is_about_a_hundred_lines_long() -> None:
    assert README.count("\n") <= 145


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?://)([^)#]+)\)", README))
def test_readme_links_to_files_that_exist(link: str) -> None:
    assert (ROOT / link).exists()
