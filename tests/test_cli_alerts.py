"""`promptab alerts`: what was told, what has not arrived, and sending it from cron."""

from __future__ import annotations

import asyncio
import base64
import logging
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import promptab
from promptab import PromptFileError
from promptab.alerts.alert import KINDS
from promptab.alerts.channel import AlertSettings
from promptab.delivering.outbox import AlertOutbox
from promptab.library.policies import read_policy_file
from promptab.stores.alert_schema import alert_channels
from promptab.stores.base import Transaction
from promptab.stores.opening import open_store
from tests.command_line import Shell, in_new_process
from tests.contract.test_alerts import an_alert, put
from tests.webhook_server import Answer, WebhookServer, listening

SECRET = f"whsec_{base64.b64encode(b'k' * 32).decode()}"
FORGED = "b is better\n[critical] forged \x1b[31m"


@pytest.fixture(autouse=True)
def quiet_again() -> Iterator[None]:
    """Take the handler away that commands put on the log."""
    yield
    logging.getLogger("promptab.alerts").handlers = []


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(tmp_path, monkeypatch)


@pytest.fixture
def told(shell: Shell) -> Shell:
    """A store in which three facts were told."""

    async def work() -> None:
        async with promptab.open(f"sqlite:///{shell.folder / 'promptab.db'}") as lab:
            now = lab.alerts._clock()
            await put(
                lab.store,
                an_alert(1, at=now, sentence=FORGED),
                an_alert(2, at=now, severity="warning", kind="stalled"),
                an_alert(3, at=now, severity="critical", kind="guardrail_failed", sentence="word " * 40),
            )

    asyncio.run(work())
    return shell


def declare(shell: Shell, text: str) -> None:
    (shell.folder / "promptab.yaml").write_text(text, encoding="utf-8")


def test_nothing_was_told_so_far(shell: Shell) -> None:
    shell.make_greeting()
    assert shell.ok("alerts") == "no alerts so far\n"
    assert shell.ok("alerts", "--dead") == "no alert was given up\n"
    assert shell.json("alerts") == []


def test_alerts_are_listed_with_every_word_and_nothing_that_steers_a_terminal(told: Shell) -> None:
    shown = told.ok("alerts")
    assert [line.split("  ")[1] for line in shown.splitlines() if not line.startswith(" ")] == [
        "critical",
        "warning",
        "info",
    ]
    assert shown.count("word") == 40
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown
    assert "\n[critical]" not in shown
    assert [found["alert"]["alert_id"] for found in told.json("alerts", "--limit", "2")] == [
        "alert_3",
        "alert_2",
    ]


def test_without_a_file_alerts_go_to_the_log_on_standard_error(told: Shell) -> None:
    said = in_new_process(told.folder, "alerts", "deliver")
    assert (said.code, said.out) == (0, "3 alerts delivered\n")
    lines = said.err.splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == ["[info]", "[warning]", "[critical]"]
    assert "\x1b" not in said.err
    assert "log: delivered 20" in told.ok("alerts")
    assert told.json("alerts", "deliver") == {"delivered": 0, "postponed": 0, "dead": 0}


async def deliver_to(server: WebhookServer, shell: Shell, *words: str) -> tuple[int, str, str]:
    """Run `promptab alerts deliver` in a process of its own, while the server serves in this one."""
    declare(
        shell,
        f"""
alerts:
  log: {{least_severity: critical}}
  webhooks:
    oncall:
      url: {server.url("/hush?token=s3cr3t")}
      secret_env: HOOK_SECRET
      allowed_hosts: [127.0.0.1]
      least_severity: warning
""",
    )
    return await asyncio.to_thread(
        in_new_process, shell.folder, "alerts", "deliver", *words, environment={"HOOK_SECRET": SECRET}
    )


async def test_cron_delivers_and_says_by_its_exit_code_what_was_given_up(told: Shell) -> None:
    async with listening(WebhookServer()) as server:
        server.script += [Answer(500), Answer(410)]
        code, out, err = await deliver_to(server, told)
        assert (code, " ".join(out.split())) == (
            8,
            "1 alert delivered, 1 to be tried again, 1 given up (list them with `promptab alerts --dead`)",
        )
        assert len(server.got) == 2
        assert "oncall: answered 410: it wants no more; attempt 1 of 12, given up" in err
        for word in ("hush", "s3cr3t", SECRET, "127.0.0.1"):
            assert word not in out + err
        (dead,) = await listed(told, "--dead")
        (gone,) = [way for way in dead["deliveries"] if way["status"] == "dead"]
        assert (gone["channel"], gone["error"]) == ("oncall", "answered 410: it wants no more")
        shown = await asyncio.to_thread(told.ok, "alerts")
        assert "oncall: given up after 1 attempt: answered 410: it wants no more" in shown
        assert "oncall: not delivered after 1 attempt: answered 500; due 20" in shown
        alert_id = dead["alert"]["alert_id"]
        assert await asyncio.to_thread(told.ok, "alerts", "retry", alert_id) == "due again: oncall\n"
        code, out, _ = await deliver_to(server, told, "--json")
        assert (code, server.got[-1].headers["webhook-id"]) == (0, alert_id)
        assert await listed(told, "--dead") == []


async def listed(shell: Shell, *words: str) -> list[Any]:
    found: list[Any] = await asyncio.to_thread(shell.json, "alerts", *words)
    return found


def test_what_there_is_none_of_has_an_exit_code_of_its_own(told: Shell) -> None:
    assert told.run("alerts", "retry", "alert_9").code == 3
    assert told.run("alerts", "retry", "alert_1").code == 6
    assert told.run("alerts", "--experiment", "nothing").code == 3
    assert told.run("alerts", "--limit", "0").code == 5
    assert told.run("alerts", "deliver", "--policy-file", "missing.yaml").code == 5
    said = told.run("alerts", "delivr")
    assert (said.code, "Did you mean 'deliver'" in said.err) == (2, True)


def test_a_secret_that_is_not_set_is_named_before_anything_is_sent(told: Shell) -> None:
    declare(told, "alerts: {webhooks: {oncall: {url: 'https://a.example/hush', secret_env: NO_SUCH}}}")
    said = told.run("alerts", "deliver")
    assert (said.code, "NO_SUCH is not given in the environment" in said.err) == (5, True)
    assert "hush" not in said.err
    assert "waits" not in told.ok("alerts")


FILE = """
ab_testing:
  monitoring:
    alert_on_significant_result: false
    alert_on_sample_size_reached: true
alerts:
  log: {kinds: [significant, stalled]}
  webhooks:
    chat:
      url_env: SLACK
      format: slack
"""


def test_the_file_says_where_alerts_go_and_what_is_not_told() -> None:
    settings = read_policy_file(FILE).alerts
    assert settings.log is not None
    assert settings.log.kinds == ("stalled",)
    (chat,) = settings.webhooks
    assert (chat.name, chat.url_env, chat.format) == ("chat", "SLACK", "slack")
    assert set(chat.kinds) == set(KINDS) - {"significant"}
    assert read_policy_file("alerts:").alerts == AlertSettings()
    assert read_policy_file("alerts: {log: }").alerts == AlertSettings()
    assert read_policy_file("alerts: {log: false}").alerts == AlertSettings(log=None)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("policies: {}\nalerts: {weather: 1}", 2),
        ("alerts: [hush]", 1),
        ("alerts:\n  log: hush", 1),
        ("alerts:\n  webhooks: https://hooks.example.com/hush", 2),
        ("alerts:\n  webhooks:\n    a: https://hooks.example.com/hush", 3),
        ("alerts:\n  webhooks:\n    a: {url: 'http://hooks.example.com/hush', format: slack}", 3),
        ("alerts:\n  webhooks:\n    a: {url: 'https://a.example', secret: hush}", 3),
        ("alerts:\n  webhooks:\n    a: {url: 'https://a.example', secret_env: whsec_+hush}", 3),
        ("alerts:\n  log: {kinds: [hush]}", 2),
        ("alerts:\n  webhooks:\n    https://a.example/hush: {format: slack}", 2),
        ("alerts:\n  webhooks:\n    log: {url: 'https://a.example', format: slack}", 3),
        ("alerts:\n  webhooks:\n    a: {name: hush, url: 'https://a.example', format: slack}", 3),
    ],
)
def test_what_the_file_has_wrong_is_refused_with_its_line_and_no_secret(text: str, line: int) -> None:
    with pytest.raises(PromptFileError) as caught:
        read_policy_file(text)
    assert caught.value.line == line
    if "webhooks" in text:
        assert "hush" not in str(caught.value)


async def test_without_the_extra_a_webhook_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "promptab.delivering.webhook", None)
    settings = read_policy_file("alerts: {webhooks: {a: {url: 'https://a.example', format: slack}}}").alerts
    store = await open_store(f"sqlite:///{tmp_path / 'a.db'}")
    with pytest.raises(promptab.MissingExtraError, match=r"promptab\[webhooks\]"):
        AlertOutbox(store).declare(settings)
    await store.close()


def test_a_pruning_says_first_what_would_go_and_keeps_what_waits(told: Shell) -> None:
    assert in_new_process(told.folder, "alerts", "deliver").code == 0
    shown = told.ok("alerts", "prune", "--before", "2d")
    assert "to be dropped" in shown
    document = told.json("alerts", "prune", "--before", "2d", "--yes")
    assert (document["dropped"], document["kept"], document["applied"]) == (0, {}, True)

    async def long_ago() -> None:
        async with promptab.open(f"sqlite:///{told.folder / 'promptab.db'}") as lab:
            now = lab.alerts._clock()
            await put(lab.store, an_alert(4, at=now - timedelta(days=100)))

            async def known_for_long(tx: Transaction) -> None:
                await tx.alert_retention._connection.execute(
                    alert_channels.update().values(since=now - timedelta(days=200))
                )

            await lab.store.write(known_for_long)

    asyncio.run(long_ago())
    kept = told.ok("alerts", "prune", "--before", "90d", "--yes")
    assert "kept: still to be delivered to log" in kept
    assert max(map(len, kept.splitlines())) <= 80
    assert told.ok("alerts", "forget", "log") == "log is forgotten; 0 alerts waited for it\n"
    assert told.json("alerts", "prune", "--before", "90d")["dropped"] == 1
    assert len(told.json("alerts")) == 4
    assert told.json("alerts", "prune", "--before", "90d", "--yes")["dropped"] == 1
    assert len(told.json("alerts")) == 3


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("prune", "--before", "soon"), "--before"),
        (("prune", "--before", "1d"), "two days"),
        (("forget", "nowhere"), "nowhere"),
    ],
    ids=["no_time", "too_late", "no_channel"],
)
def test_what_cannot_be_pruned_or_forgotten_is_refused(
    told: Shell, words: tuple[str, ...], named: str
) -> None:
    said = told.run("alerts", *words)
    assert said.code != 0
    assert named in said.err
