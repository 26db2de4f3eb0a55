"""How an alert is written: a line for a log, a document of Standard Webhooks, a message for Slack."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from promptab.alerts.alert import Alert, Severity

_SIGNS: dict[Severity, str] = {
    "info": ":information_source:",
    "warning": ":warning:",
    "critical": ":rotating_light:",
}
_ESCAPED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
MOST_SLACK_CHARS = 2_900
"""A section of Slack holds 3,000."""


def line_of(alert: Alert) -> str:
    """Return the alert in one line, whatever its sentence holds."""
    return _flat(f"[{alert.severity}] {alert.name}: {_spoken(alert)}: {alert.sentence} ({alert.alert_id})")


def document_of(alert: Alert) -> dict[str, Any]:
    """Return what a webhook is sent: type, timestamp (of the fact) and data, as Standard Webhooks has it."""
    said = alert.model_dump(mode="json")
    return {
        "type": f"promptab.alert.{alert.kind}",
        "timestamp": _iso(alert.at),
        "data": {**said, "at": _iso(alert.at)},
    }


def slack_document_of(alert: Alert) -> dict[str, Any]:
    """Return the message that Slack's incoming webhooks take; names in it mention nobody and link nowhere."""
    head = f"{_SIGNS[alert.severity]} *{_escaped(alert.name)}*: {_spoken(alert)}"
    text = f"{head}\n{_escaped(alert.sentence)}"
    foot = f"{alert.severity} · {_iso(alert.at)} · {alert.alert_id}"
    return {
        "text": _flat(f"{alert.name}: {_spoken(alert)}: {alert.sentence}", escaped=True)[:MOST_SLACK_CHARS],
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": text[:MOST_SLACK_CHARS]}},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": foot}]},
        ],
    }


def encoded(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _spoken(alert: Alert) -> str:
    return alert.kind.replace("_", " ")


def _iso(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def _flat(text: str, *, escaped: bool = False) -> str:
    """Put it on one line, without what steers a terminal or a log."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return _escaped(line) if escaped else line


def _escaped(text: str) -> str:
    return "".join(_ESCAPED.get(letter, letter) for letter in text)
