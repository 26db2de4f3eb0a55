"""`promptab experiment sample-size`, `replay`, `interaction` and `promote-winner`: what they print and refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from promptab.cli.experiment import app
from promptab.cli.output import run
from promptab.lab import Lab
from tests.command_line import Shell
from tests.test_cli_examples import examples

EXPERIMENT = "experiment"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(tmp_path, monkeypatch)


@pytest.fixture
def served(shell: Shell) -> Shell:
    """A shell with two experiments on the same users; 1.1.0 succeeds far more often."""
    shell.make_greeting()
    shell.ok("experiment", "create", "system/greeting", "--variant", "1.0.0=1", "--variant", "1.1.0=1")
    configs = ("--config", 'a={"k": 3}', "--config", 'b={"k": 8}')
    shell.ok("experiment", "create", "top-k", "--variant", "a", "--variant", "b", *configs)

    async def work(lab: Lab) -> None:
        for number in range(300):
            await lab.experiments.assign("top-k", f"u{number}")
            choice = await lab.choose("greeting", user_id=f"u{number}")
            success = number % 10 < (9 if choice.variant == "1.1.0" else 3)
            # how many events a unit has says nothing of how they turn out
            for _ in range(1 + number // 10 % 2):
                await choice.record(success=success, response_time=0.5 + number % 7 / 10)

    run(work, url=None)
    return shell


def own_examples(command: str) -> list[list[str]]:
    group: Any = typer.main.get_command(app)
    return list(examples(group.commands[command].help))


def flowing(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("command", ["replay", "interaction", "promote-winner"])
def test_examples_of_the_help_run(served: Shell, command: str) -> None:
    found = own_examples(command)
    assert found
    for words in found:
        assert words[:2] == [EXPERIMENT, command]
        served.ok(*words)


def size(shell: Shell, *words: str) -> Any:
    return shell.json(EXPERIMENT, "sample-size", *words)


def test_sample_size_prints_both_methods_in_a_table(shell: Shell) -> None:
    words = ("--baseline", "0.15", "--mde", "0.10", "--relative")
    shown = shell.ok(EXPERIMENT, "sample-size", *words)
    document = size(shell, *words)
    sequential, fixed = document["tests"]
    assert (fixed["control_units"], fixed["units"]) == (9_257, 18_514)
    assert flowing(shown).startswith(document["sentence"])
    assert f"{sequential['control_units']:,}" in shown
    assert "fixed 9,257 18,514 0.80 +1.5 points" in flowing(shown)
    assert "days" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_sample_size_tells_days_and_events_where_they_are_known(shell: Shell) -> None:
    words: tuple[str, ...] = (
        "--baseline",
        "0.5",
        "--mde",
        "0.05",
        "--events-per-unit",
        "4",
        "--event-cv",
        "0.5",
    )
    words += ("--correlation", "0.1", "--units-per-day", "300", "--traffic", "0.5", "--ratio", "0.5")
    fixed = size(shell, *words)["tests"][1]
    assert fixed["events"] == 4 * fixed["units"]
    assert fixed["days"] >= fixed["units"] // 150
    shown = flowing(shell.ok(EXPERIMENT, "sample-size", *words))
    assert f"{fixed['control_units']:,} and {fixed['treatment_units']:,}" in shown
    # Eldridge: 1 + ((0.25 + 1) 4 - 1) 0.1 over 4 events
    assert size(shell, *words)["variance_factor"] == pytest.approx(1.4 / 4)


def test_sample_size_answers_the_questions_turned_round(shell: Shell) -> None:
    words = ("--mean", "1.2", "--sd", "0.9", "--units", "1000", "--direction", "decrease")
    effect = size(shell, *words)
    assert effect["question"] == "effect"
    assert effect["tests"][1]["effect"] < 0.0
    found = -effect["tests"][1]["effect"]
    power = size(shell, *words, "--mde", str(found))
    assert power["question"] == "power"
    assert power["tests"][1]["power"] == pytest.approx(0.8, abs=1e-6)
    margin = size(shell, "--mean", "1.2", "--sd", "0.9", "--margin", "0.05", "--relative", "--variants", "3")
    assert (margin["question"], margin["alpha"], margin["margin"]) == ("units", 0.05, pytest.approx(0.06))


def test_sample_size_measures_the_history_of_an_experiment_or_a_prompt(served: Shell) -> None:
    for source in ("greeting", "system/greeting"):
        document = size(served, "--from", source, "--metric", "success_rate", "--mde", "0.05")
        history = document["history"]
        assert document["baseline"] == history["mean"]
        # the salt is drawn anew for every run, and with it who is in the control
        assert history["events_per_unit"] == pytest.approx(1.5, abs=0.2)
        # a unit's events are all alike here
        assert history["correlation"] > 0.8
        shown = flowing(served.ok(EXPERIMENT, "sample-size", "--from", source, "--mde", "0.05"))
        assert "design effect" in shown
        assert history["source"] in shown
    times = size(served, "--from", "greeting", "--metric", "response_time", "--mde", "0.1", "--relative")
    assert (times["direction"], times["format"]) == ("decrease", "seconds")
    assert times["tests"][1]["effect"] < 0.0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 5, "give --baseline for a rate"),
        (("--mean", "3"), 5, "--sd"),
        (("--baseline", "15", "--mde", "0.1"), 5, "--baseline: 15.0 is not"),
        (("--baseline", "0.15"), 5, "smallest effect that is worth finding"),
        (("--baseline", "0.15", "--mde", "0"), 5, "different from 0"),
        (
            ("--baseline", "0.15", "--mde", "0.9"),
            5,
            "--mde: 0.9 is not small enough: a rate of 0.15 would become 1.05",
        ),
        (("--baseline", "0.95", "--mde", "0.1", "--relative"), 5, "--mde: 0.1 is not small enough"),
        (("--baseline", "0.15", "--mde", "0.1", "--sd", "1"), 5, "beside --baseline"),
        (("--baseline", "0.15", "--mde", "0.1", "--power", "2"), 5, "--power: 2.0"),
        (("--baseline", "0.15", "--mde", "0.1", "--variants", "1"), 5, "--variants: 1"),
        (("--baseline", "0.15", "--mde", "0.1", "--correlation", "0.2"), 5, "--events-per-unit"),
        (("--baseline", "0.15", "--mde", "0.1", "--events-per-unit", "0.5"), 5, "--events-per-unit: 0.5"),
        (("--baseline", "0.15", "--mde", "0.1", "--metric", "cost"), 5, "--from"),
        (("--baseline", "0.15", "--mde", "0.1", "--direction", "sideways"), 2, "direction"),
        (("--sd", "2", "--mde", "0.1", "--relative"), 5, "--relative"),
        (
            ("--baseline", "0.15", "--mde", "0.1", "--history-correlation", "1"),
            5,
            "--history-correlation: 1.0",
        ),
        (("--baseline", "0.15", "--units", "1"), 5, "--units: 1"),
        (("--baseline", "0.15", "--mde", "0.1", "--ratio", "0"), 5, "--ratio: 0.0"),
        (("--baseline", "0.15", "--mde", "0.1", "--traffic", "0"), 5, "--traffic: 0.0"),
        (("--from", "nobody", "--mde", "0.1"), 3, "nobody"),
        (("--from", "nobody", "--sd", "1", "--mde", "0.1"), 5, "beside --from"),
    ],
)
def test_sample_size_refuses_impossible_input_with_a_remedy(
    shell: Shell, words: tuple[str, ...], code: int, said: str
) -> None:
    result = shell.run(EXPERIMENT, "sample-size", *words)
    assert result.code == code
    assert said in flowing(result.err)


def test_sample_size_of_a_history_without_units_says_what_to_give_instead(shell: Shell) -> None:
    shell.make_greeting()
    said = shell.run(EXPERIMENT, "sample-size", "--from", "system/greeting", "--mde", "0.1")
    assert said.code == 5
    assert "give the baseline" in flowing(said.err)


def test_replay_prints_the_sentence_and_refuses_few_units(served: Shell) -> None:
    words = (EXPERIMENT, "replay", "greeting", "--runs", "100", "--seed", "3")
    document = served.json(*words)
    assert document["runs"] == 100
    assert flowing(served.ok(*words)) == document["sentence"]
    served.ok("experiment", "create", "tone", "--variant", "a", "--variant", "b", "--config", 'a={"k": 1}',
              "--config", 'b={"k": 2}')  # fmt: skip
    assert served.run(EXPERIMENT, "replay", "tone").code == 6
    assert served.run(EXPERIMENT, "replay", "greeting", "--runs", "0").code == 5


def test_interaction_prints_every_contrast_with_its_interval(served: Shell) -> None:
    document = served.json(EXPERIMENT, "interaction", "greeting", "top-k")
    shown = flowing(served.ok(EXPERIMENT, "interaction", "greeting", "top-k"))
    assert document["units"] == 300
    assert shown.startswith(document["sentence"])
    assert document["contrasts"][0]["sentence"] in shown
    assert "units in both 300 units" in shown
    assert served.run(EXPERIMENT, "interaction", "greeting", "greeting").code == 5
    assert served.run(EXPERIMENT, "interaction", "greeting", "nobody").code == 3


def test_promote_winner_says_what_moved_and_why(served: Shell) -> None:
    words = (EXPERIMENT, "promote-winner", "greeting")
    assert served.run(*words).code == 6
    assert "approximate" in served.run(*words).err
    assert served.json("deployments", "system/greeting") == []
    shown = flowing(served.ok(*words, "--allow-approximate", "--actor", "ada"))
    assert shown.startswith("system/greeting@1.1.0 is live in production.")
    assert "Experiment greeting is completed: 1.1.0 is " in shown
    (move,) = served.json("deployments", "system/greeting")
    assert (move["version"], move["actor"]) == ("1.1.0", "ada")
    assert served.json("experiment", "status", "greeting")["experiment"]["winner"] == "1.1.0"


def test_promote_winner_without_a_winner_exits_with_wrong_state_and_the_reason(served: Shell) -> None:
    said = served.run(EXPERIMENT, "promote-winner", "top-k", "--allow-approximate")
    assert said.code == 6
    assert "has no winner" in said.err
    assert served.json("deployments", "system/greeting") == []


def test_what_is_left_out_is_as_the_project_has_it_for_its_experiments(shell: Shell) -> None:
    words = ("--baseline", "0.15", "--mde", "0.10", "--relative")
    usual = size(shell, *words)
    block = "ab_testing: {default_settings: {power: 0.95, significance_level: 0.01}}\n"
    (shell.folder / "promptab.yaml").write_text(block, encoding="utf-8")
    assert [test["power"] for test in size(shell, *words)["tests"]] == pytest.approx([0.95, 0.95], abs=1e-3)
    said = shell.run(EXPERIMENT, "sample-size", *words)
    assert "note: power 0.95 and alpha 0.01 of the ab_testing block in promptab.yaml" in said.err
    assert size(shell, *words) == size(shell, *words, "--power", "0.95", "--alpha", "0.01")
    assert size(shell, *words, "--power", "0.8", "--alpha", "0.05") == usual
    assert (
        "--power" not in shell.run(EXPERIMENT, "sample-size", *words, "--power", "0.8", "--alpha", "0.1").err
    )
    disabled = block.replace("{default", "{enabled: false, default")
    (shell.folder / "promptab.yaml").write_text(disabled, encoding="utf-8")
    assert size(shell, *words) == usual
