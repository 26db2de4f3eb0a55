"""`promptab demo` as people run it: in processes of their own, in and outside a folder with prompts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from promptab.cli import Promptab

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-c", "from promptab.cli import main; main()"]


def run_promptab(
    *arguments: str, folder: Path, answer: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PROMPTAB_", "OPENAI_"))
    }
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "COLUMNS": "100", **variables},
        input=answer,
        stdin=subprocess.DEVNULL if answer is None else None,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder without prompts, as where a wheel is tried."""
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def story(empty: Path) -> str:
    """What a person sees."""
    done = run_promptab("demo", folder=empty)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def result() -> Any:
    """What a program gets, in the checkout."""
    done = run_promptab("demo", "--json", "--users", "600", folder=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_story_says_at_the_start_and_at_the_end_that_the_model_is_simulated(story: str) -> None:
    lines = [line for line in story.splitlines() if line.strip()]
    assert "SIMULATED" in lines[0]
    assert "simulated" in " ".join(lines[-2:])


def test_story_takes_every_step(story: str) -> None:
    steps = re.findall(r"^\d\. (.+?) ─", story, flags=re.MULTILINE)
    assert steps == [
        "Prompts become versions",
        "Two versions, one experiment",
        "Which one is better?",
        "Promotion",
        "A bad version slips through",
        "Rollback",
        "What was live when",
        "What to try next",
    ]
    for fact in (
        "production: 1.0.0 -> 1.0.1",
        "production: 1.0.2 -> 1.0.1",
        "Success rate (primary, higher is better)",
        "├",
        "●",
    ):
        assert fact in story


def test_story_fits_into_the_terminal(story: str) -> None:
    assert max(len(line) for line in story.splitlines()) <= 100


def test_story_names_only_commands_that_there_are(story: str) -> None:
    following = story.partition("What to try next")[2]
    named = re.findall(r"^ +promptab (\S+)", following, flags=re.MULTILINE)
    assert len(named) >= 3
    assert set(named) - {"--help"} <= set(Promptab.entries)


def test_temporary_store_is_gone_afterwards(story: str) -> None:
    shown = re.search(r"sqlite:///(\S+/promptab-demo-\S+/demo\.db)", story)
    assert shown is not None
    assert not Path(shown[1]).parent.exists()


def test_json_holds_the_whole_result(result: Any) -> None:
    assert result["simulated"] is True
    assert result["promoted"] == result["comparison"]["winner"] == "1.0.1"
    assert (result["bad_version"], result["rolled_back_to"]) == ("1.0.2", "1.0.1")
    assert result["bad_success_rate"] < result["success_rate_before"]
    assert [move["action"] for move in result["deployments"]] == ["promote"] * 3 + ["rollback"]
    assert "system/support_reply@1.0.0" in result["prompts"]
    assert result["kept"] is False
    assert result["customers"] == 660


def test_default_seed_gives_the_same_numbers_again(result: Any) -> None:
    again = run_promptab("demo", "--json", "--users", "600", folder=ROOT)
    assert json.loads(again.stdout)["comparison"]["metrics"] == result["comparison"]["metrics"]


def test_store_in_the_environment_is_not_touched(tmp_path: Path) -> None:
    mine = tmp_path / "mine.db"
    done = run_promptab("demo", "--json", "--users", "40", folder=tmp_path, PROMPTAB_URL=f"sqlite:///{mine}")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_kept_store_answers_the_commands_that_the_demo_names(tmp_path: Path) -> None:
    done = run_promptab("demo", "--keep", "--users", "100", folder=tmp_path, TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    following = done.stdout.partition("What to try next")[2]
    url = re.search(r"export PROMPTAB_URL=(\S+)", following)
    assert url is not None
    commands = re.findall(r"^ +promptab (.+?) *$", following, flags=re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        shown = run_promptab(*command.split(), folder=tmp_path, PROMPTAB_URL=url[1])
        assert shown.returncode == 0, (command, shown.stderr)


def test_given_store_is_kept_and_refused_the_second_time(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'demo.db'}"
    first = run_promptab("demo", "--url", url, "--users", "40", "--json", folder=tmp_path)
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["kept"] is True
    second = run_promptab("demo", "--url", url, "--json", folder=tmp_path)
    assert second.returncode == 6
    assert "give it a new store" in json.loads(second.stderr)["error"]["message"]
    assert second.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--users", "3"], 2, "20"),
        (["--provider", "nobody"], 5, "one of openai, anthropic"),
        (["--provider", "openai"], 5, "OPENAI_API_KEY"),
    ],
    ids=["few-users", "unknown-provider", "no-key"],
)
def test_bad_option_is_refused_with_its_bound(
    empty: Path, arguments: list[str], code: int, said: str
) -> None:
    done = run_promptab("demo", *arguments, folder=empty)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(empty.iterdir()) == []


def test_calls_that_cost_money_need_a_yes(empty: Path) -> None:
    done = run_promptab("demo", "--provider", "openai", folder=empty, answer="n\n", OPENAI_API_KEY="unused")
    assert done.returncode == 1
    assert "34 calls to gpt-4.1-mini of openai" in done.stderr
    assert "aborted" in done.stderr
