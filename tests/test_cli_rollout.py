"""`promptab decide, decisions, approve, override` and the policy of `promptab experiment`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from promptab import Decision, Lab
from promptab.cli.output import run
from tests.command_line import Shell
from tests.rollouts import BETTER, CANDIDATE, CONTROL, EQUAL, WORSE, staged

POLICIES = """
policies:
  careful:
    guardrails: ["success_rate >= 0.8", "p95_response_time <= 2.0"]
    allow_approximate: true
    ramp: [0.1, {traffic: 0.5, minimum_units: 200}]
  asked:
    criteria: {min_requests: 100, max_error_rate: 0.05}
ab_testing:
  default_settings: {significance_level: 0.02, max_duration_days: 14}
  traffic_allocation: {method: random, hash_seed: spring}
  automation: {auto_promote_winner: true}
"""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(tmp_path, monkeypatch)


def begin(
    shell: Shell, rates: Mapping[str, float], policy: Mapping[str, object] | None, *, units: int = 400
) -> None:
    """Start an experiment on system/support_reply, whose control is live, and record outcomes."""

    async def work(lab: Lab) -> None:
        scene = await staged(lab, policy)
        await scene.record(rates, units)

    run(work, url=None)


def test_decide_says_what_is_to_be_done_and_apply_does_it(shell: Shell) -> None:
    begin(shell, BETTER, {})
    told = shell.ok("decide", "support_reply")
    assert told.startswith("support_reply: promote 1.1.0 (not applied)\nPromote: 1.1.0 is 30.0 points better")
    assert told.endswith("Nothing has changed; with --apply it is done.\n")
    applied = shell.ok("decide", "support_reply", "--apply")
    assert applied.startswith("support_reply: promote 1.1.0 (applied by promptab)\n")
    assert "system/support_reply@1.1.0 is now live in production" in " ".join(applied.split())
    assert all(len(line) <= 80 for line in (told + applied).splitlines())
    history = shell.json("deployments", "system/support_reply")
    assert (history[-1]["action"], history[-1]["evidence"]["rule"]) == ("promote", "won")
    ended = shell.run("decide", "support_reply", "--apply")
    assert (ended.code, ended.out) == (6, "")
    assert "is completed: nothing is left to decide" in ended.err


def test_decide_again_and_again_is_one_line_of_decisions(shell: Shell) -> None:
    begin(shell, EQUAL, {})
    for _ in range(3):
        shell.ok("decide", "support_reply", "--apply")
    [kept] = shell.json("decisions", "support_reply")
    assert (kept["seen"], kept["status"], kept["decision"]["action"]) == (3, "noted", "continue")
    told = shell.ok("decisions", "support_reply")
    assert f"{kept['decision_id'][:8]}  continue (undecided): nothing to do" in told
    assert "seen 3 times" in told


def test_an_experiment_without_a_policy_is_not_decided_about(shell: Shell) -> None:
    begin(shell, EQUAL, None, units=10)
    said = shell.run("decide", "support_reply", "--json")
    assert said.code == 6
    assert json.loads(said.err)["error"]["kind"] == "wrong_state"
    assert shell.ok("decisions", "support_reply") == "Nothing has been decided yet.\n"
    assert shell.run("decide", "nothing").code == 3


def test_replay_makes_the_same_decision_of_the_stored_inputs(shell: Shell) -> None:
    begin(shell, WORSE, {"guardrails": ["success_rate >= 0.8"]})
    stored = shell.json("decide", "support_reply")
    told = shell.ok("decide", "support_reply", "--replay", stored["decision_id"][:8])
    assert told.startswith("The same again: rollback 1.1.0. Rollback: success_rate >= 0.8")
    again = shell.json("decide", "support_reply", "--replay", stored["decision_id"])
    assert (again["same"], again["differing"]) == (True, [])
    assert again["again"] == again["stored"]["decision"]


def test_replay_of_a_decision_that_comes_out_differently_is_a_failed_check(shell: Shell) -> None:
    begin(shell, WORSE, {"guardrails": ["success_rate >= 0.8"]})
    stored = shell.json("decide", "support_reply")
    document = stored["decision"] | {"action": "continue", "rule": "undecided"}

    async def tamper(lab: Lab) -> None:
        await lab.store.write(lambda tx: tx.decisions.append(other))

    [known] = run(lambda lab: lab.decisions("support_reply"), url=None)
    other = known.model_copy(
        update={"decision": Decision.model_validate(document), "decision_id": "f" * 36, "sequence": 0}
    )
    run(tamper, url=None)
    said = shell.run("decide", "support_reply", "--replay", "ffff")
    assert said.code == 8
    assert "action: continue was stored, rollback comes out" in said.out


def test_what_cannot_be_replayed_is_refused(shell: Shell) -> None:
    begin(shell, EQUAL, {}, units=10)
    done = shell.json("override", "support_reply", "pause", "--reason", "lunch")
    said = shell.run("decide", "support_reply", "--replay", done["decision_id"])
    assert said.code == 6
    assert "was a person's" in said.err
    assert shell.run("decide", "support_reply", "--replay", "zzz").code == 3
    assert shell.run("decide", "support_reply", "--replay", "zzz", "--apply").code == 5


def test_approve_applies_what_waits_for_a_person(shell: Shell) -> None:
    begin(shell, BETTER, {"on_win": "require_approval"})
    refused = shell.run("approve", "support_reply")
    assert refused.code == 6
    waiting = shell.ok("decide", "support_reply", "--apply")
    assert "(waits for approval)" in waiting
    assert "`promptab approve support_reply` does it." in waiting
    told = shell.ok("approve", "support_reply", "--reason", "read fifty answers")
    assert "(applied by ada)" in told
    assert shell.json("deployments", "system/support_reply")[-1]["reason"].endswith(
        "approved: read fifty answers"
    )


def test_what_has_moved_since_is_exit_code_4(shell: Shell) -> None:
    begin(shell, BETTER, {"on_win": "require_approval"})
    shell.ok("decide", "support_reply")
    shell.ok("experiment", "pause", "support_reply")
    said = shell.run("approve", "support_reply")
    assert said.code == 4
    assert "(superseded)" in said.out
    assert "The experiment is paused now and was running." in said.out
    assert "Nothing was done; decide again." in said.out


def test_override_does_it_at_once_and_keeps_the_reason(shell: Shell) -> None:
    begin(shell, EQUAL, {}, units=20)
    told = shell.ok(
        "override", "support_reply", "rollback", "--reason", "it is [bold]rude[/bold]", "--actor", "Bob"
    )
    assert told.startswith("support_reply: rollback 1.1.0 (applied by Bob)\n")
    assert "it is [bold]rude[/bold]" in told
    entries = shell.ok("deployments", "system/support_reply")
    assert "keep" in entries
    assert shell.ok("decisions", "support_reply").count("override") == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["override", "support_reply", "rollback"], 2),
        (["override", "support_reply", "rollback", "--reason", ""], 5),
        (["override", "support_reply", "explode", "--reason", "x"], 5),
        (["override", "support_reply", "rollback", "--variant", CONTROL, "--reason", "x"], 5),
        (["override", "support_reply", "continue", "--reason", "x"], 6),
        (["override", "nothing", "stop", "--reason", "x"], 3),
        (["decisions", "nothing"], 3),
        (["decisions", "support_reply", "--limit", "0"], 5),
    ],
    ids=["no reason", "empty reason", "no action", "control", "runs", "unknown", "unknown list", "limit"],
)
def test_what_makes_no_sense_has_an_exit_code(shell: Shell, words: list[str], code: int) -> None:
    begin(shell, EQUAL, {}, units=10)
    said = shell.run(*words)
    assert (said.code, said.out) == (code, "")


def test_the_guardrails_of_the_policy_are_in_the_analysis(shell: Shell) -> None:
    begin(shell, WORSE, {"guardrails": ["success_rate >= 0.8", "success_rate >= control - 2%"]})
    told = shell.ok("experiment", "analyze", "support_reply")
    block = told[told.index("Guardrails") : told.index("Checks")]
    assert "FAILED  success_rate >= 0.8" in block
    assert all(len(line) <= 80 for line in block.splitlines())
    document = shell.json("experiment", "analyze", "support_reply")
    assert [guard["verdict"] for guard in document["guards"]] == ["fail", "fail"]


def create(shell: Shell, *words: str) -> list[str]:
    shell.make_greeting()
    return [
        "experiment", "create", "greeting", "--variant", "1.0.0=1", "--variant", "1.1.0=1", *words,
    ]  # fmt: skip


def test_create_takes_a_policy_of_the_project(shell: Shell) -> None:
    (shell.folder / "promptab.yaml").write_text(POLICIES, encoding="utf-8")
    made = shell.json(*create(shell, "--policy", "careful"))
    assert [guard["metric"] for guard in made["policy"]["guardrails"]] == [
        "success_rate",
        "p95_response_time",
    ]
    assert (made["traffic"], len(made["policy_digest"])) == (0.1, 64)
    told = shell.ok("experiment", "status", "greeting")
    assert f"{made['policy_digest'][:12]}; on a win: promote" in told
    assert "step 1 of 2, 10.0 % of all" in told
    assert shell.json("experiment", "status", "greeting")["rollout"]["step"] == 0


def test_create_takes_criteria_of_the_project(shell: Shell) -> None:
    (shell.folder / "promptab.yaml").write_text(POLICIES, encoding="utf-8")
    made = shell.json(*create(shell, "--policy", "asked"))
    assert made["policy"]["minimum_events"] == 100


def test_an_ab_testing_block_is_the_policy_of_every_experiment(shell: Shell) -> None:
    (shell.folder / "promptab.yaml").write_text(POLICIES, encoding="utf-8")
    said = shell.run(*create(shell), "--json")
    assert "policy of the ab_testing block in promptab.yaml" in said.err
    made = json.loads(said.out)
    assert (made["policy"]["alpha"], made["policy"]["longest_hours"]) == (0.02, 336.0)
    assert (made["unit"], made["plan"]["confidence"]) == ("request", 0.98)
    assert re.fullmatch(r"spring.+", made["salt"])


def test_none_is_no_policy_and_an_unknown_one_is_refused(shell: Shell) -> None:
    words = create(shell)
    unknown = shell.run(*words, "--policy", "careful")
    assert unknown.code == 3
    assert "promptab.yaml declares none, or is not there" in unknown.err
    (shell.folder / "promptab.yaml").write_text(POLICIES, encoding="utf-8")
    missing = shell.run(*words, "--policy", "carefull")
    assert "promptab.yaml has careful, asked, ab_testing" in missing.err
    assert shell.json(*words, "--policy", "none")["policy"] is None


def test_a_file_that_cannot_be_read_names_the_line(shell: Shell) -> None:
    words = create(shell)
    (shell.folder / "own.yaml").write_text("policies:\n  p:\n    alpha: 7\n", encoding="utf-8")
    said = shell.run(*words, "--policy", "p", "--policy-file", "own.yaml")
    assert said.code == 5
    assert said.err.startswith("error: own.yaml:3: policy.alpha: 7.0 is not")


def test_a_file_that_is_named_and_not_there_is_no_file_without_policies(shell: Shell) -> None:
    said = shell.run(*create(shell), "--policy-file", "missing.yaml")
    assert (said.code, said.err) == (5, "error: missing.yaml: there is no such file\n")


def test_a_plan_that_a_new_policy_does_not_bring_is_told(shell: Shell) -> None:
    text = "ab_testing: {default_settings: {min_sample_size_per_group: 700, power: 0.9}}\npolicies: {p: {alpha: 0.1}}\n"
    (shell.folder / "promptab.yaml").write_text(text, encoding="utf-8")
    shell.ok(*create(shell, "--policy", "p"))
    told = shell.run("experiment", "policy", "greeting", "ab_testing").err
    assert "minimum_units 100 and not 700" in told
    assert "power 0.8 and not 0.9" in told
    assert "minimum_units" not in shell.run("experiment", "policy", "greeting", "p").err


def test_a_running_experiment_gets_another_policy_in_sight_of_everybody(shell: Shell) -> None:
    (shell.folder / "promptab.yaml").write_text(POLICIES, encoding="utf-8")
    shell.ok(*create(shell, "--policy", "none"))
    told = shell.ok("experiment", "policy", "greeting", "careful", "--reason", "costs")
    assert re.match(r"experiment greeting has the policy [0-9a-f]{12} since .* from then on", told)
    assert "new policy (policy): applied by ada" in shell.ok("decisions", "greeting")
    assert "only units exposed from then on" in " ".join(shell.ok("experiment", "status", "greeting").split())
    assert shell.ok("experiment", "policy", "greeting", "none").startswith(
        "experiment greeting has no policy"
    )


def test_the_status_names_what_was_rolled_back_and_decided(shell: Shell) -> None:
    begin(shell, WORSE, {"guardrails": ["success_rate >= 0.8"]})
    shell.ok("decide", "support_reply", "--apply")
    told = shell.ok("experiment", "status", "support_reply")
    assert f"rolled back     {CANDIDATE}" in told
    assert f"last decision   rollback {CANDIDATE}: applied by promptab" in told


@pytest.mark.parametrize("command", ["decide", "decisions", "approve", "override"])
def test_help_shows_examples_that_fit(shell: Shell, command: str) -> None:
    told = shell.ok(command, "--help")
    assert f"$ promptab {command} greeting" in told
