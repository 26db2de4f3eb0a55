"""Tables of what is done on the evidence: wrong rollbacks and promotions, and how soon a fall is seen."""

from __future__ import annotations

from typing import get_args

from tests.calibration import prose
from tests.calibration.cells import Found, detection_of, tally_of
from tests.calibration.checks import FALSE_ALARM, WRONG, Check, check
from tests.calibration.detections import CLUSTERED, Delay, Fall, falls
from tests.calibration.markdown import Section, marked, percent, table
from tests.calibration.quantile_rollouts import BEHIND_BOUND, BESIDE_CONTROL
from tests.calibration.rollouts import EVENTS_OF_UNITS, EVERY, Rollouts, Situation, watched
from tests.calibration.tally import Tally

AIMED_BOUNDED, AIMED_BESIDE = 1.6, 1.7
"""Medians, as multiples of the information bound."""


def rollouts(found: Found) -> Section:
    texts, checks = [f"## {prose.ROLLOUTS_TITLE}\n\n{prose.ROLLOUTS}"], list[Check]()
    for situation in get_args(Situation):
        text, of_rows = _rollouts(found, situation)
        texts.append(f"### {situation.capitalize()}\n\n{prose.SITUATIONS[situation]}\n\n{text}")
        checks += of_rows
    text, of_rows = _quantile_rollouts(found)
    texts.append(f"### 95th percentile\n\n{prose.QUANTILE_ROLLOUTS}\n\n{text}")
    checks += of_rows
    return Section(prose.ROLLOUTS_TITLE, "\n\n".join(texts), checks)


def _rollouts(found: Found, situation: Situation) -> tuple[str, list[Check]]:
    lines: list[list[str]] = []
    checks: list[Check] = []
    for one in watched(situation):
        for events in EVENTS_OF_UNITS:
            tally = tally_of(found, "rollouts", Rollouts(situation, events))
            line = [", ".join(f"`{guardrail}`" for guardrail in one.guardrails), one.primary, str(events)]
            for action in ("rollback", "promote"):
                for every in EVERY:
                    name = f"{one.label}: {action} every {every}"
                    told = percent(tally.share(name))
                    where = f"{situation}, {events} event{'s' if events > 1 else ''}, {name}"
                    checks.append(check(WRONG, tally, name, where=where, told=told))
                    line.append(marked(told, checks[-1]))
            lines.append([*line, percent(tally.share(f"{one.label}: careless"))])
    headings = [
        "guardrails",
        "decides",
        "events",
        *(f"wrong {done}, every {every}" for done in ("rollbacks", "promotions") for every in EVERY),
        "z test",
    ]
    return table(headings, lines), checks


def _quantile_rollouts(found: Found) -> tuple[str, list[Check]]:
    lines: list[list[str]] = []
    checks: list[Check] = []
    for one in (BEHIND_BOUND, BESIDE_CONTROL):
        for events in EVENTS_OF_UNITS:
            tally = tally_of(found, "quantile rollouts", events)
            line = [f"`{one.guardrails[0]}`", str(events)]
            for action in ("rollback", "promote"):
                name = f"{one.label}: {action}"
                told = percent(tally.share(name))
                checks.append(check(WRONG, tally, name, where=f"{name}, {events} events", told=told))
                line.append(marked(told, checks[-1]))
            lines.append([*line, percent(tally.share(f"{one.label}: careless"))])
    headings = ["guardrail", "events", "wrong rollbacks", "wrong promotions", "z test"]
    return table(headings, lines), checks


def detections(found: Found) -> Section:
    lines: list[list[str]] = []
    checks: list[Check] = []
    missed = []
    for fall in falls():
        one = detection_of(found, "detections", fall)
        of_guardrail = _told(one.guardrail, fall, one.runs)
        if fall.information_bound is None:
            tally = Tally(one.runs, [("rollback", one.guardrail.stopped)])
            checks.append(check(FALSE_ALARM, tally, "rollback", where=_against(fall), told=of_guardrail[0]))
            of_guardrail[0] = marked(of_guardrail[0], checks[-1])
        elif not is_as_aimed(one.guardrail, fall):
            missed.append(f"{_against(fall)} at {percent(fall.rate, 0)}")
        bound = "" if fall.information_bound is None else f"{fall.information_bound:.1f}"
        lines.append(
            [_against(fall), percent(fall.rate, 0), bound, *of_guardrail, *_told(one.seed, fall, one.runs)]
        )
    headings = [
        "held against",
        "success rate",
        "information bound",
        "rolled back",
        "median",
        "90th percentile",
    ]
    headings += ["seed 003: rolled back", "median", "90th percentile"]
    words = prose.DETECTIONS.format(
        bounded=AIMED_BOUNDED,
        beside=AIMED_BESIDE,
        missed=f"; missed: {'; '.join(missed)}" if missed else ", and reached in every row",
    )
    clustered, of_rows = _clustered_detections(found)
    text = f"## {prose.DETECTIONS_TITLE}\n\n{words}\n\n{table(headings, lines)}\n\n{clustered}"
    return Section(prose.DETECTIONS_TITLE, text, [*checks, *of_rows])


def _clustered_detections(found: Found) -> tuple[str, list[Check]]:
    lines: list[list[str]] = []
    checks: list[Check] = []
    for fall in CLUSTERED:
        one = detection_of(found, "clustered detections", fall)
        against = f"a bound of {percent(fall.bound, 0)}"
        told = [_delay(delay, one.runs) for delay in (one.guardrail, one.seed)]
        if fall.rate >= fall.bound:
            tally = Tally(one.runs, [("rollback", one.guardrail.stopped)])
            where = f"{against}, {fall.events} events"
            checks.append(check(FALSE_ALARM, tally, "rollback", where=where, told=told[0][0]))
            told[0][0] = marked(told[0][0], checks[-1])
        lines.append([against, percent(fall.rate, 0), *told[0], *told[1]])
    delays = ["rolled back", "median", "90th percentile"]
    headings = ["held against", "success rate", *delays, "seed 003: rolled back", *delays[1:]]
    return f"### {prose.CLUSTERED_TITLE}\n\n{prose.CLUSTERED}\n\n{table(headings, lines)}", checks


def _delay(delay: Delay, runs: int) -> list[str]:
    units = ("" if count is None else f"{count:,}" for count in (delay.median, delay.ninetieth))
    return [percent(delay.stopped / runs), *units]


def is_as_aimed(delay: Delay, fall: Fall) -> bool:
    assert fall.information_bound is not None
    aimed = AIMED_BOUNDED if fall.share is None else AIMED_BESIDE
    return delay.median is not None and delay.median <= aimed * fall.information_bound


def _against(fall: Fall) -> str:
    if fall.share is None:
        return f"a bound of {percent(fall.bound, 0)}"
    return f"a control, {percent(fall.share, 0)} treated"


def _told(delay: Delay, fall: Fall, runs: int) -> list[str]:
    share = delay.stopped / runs
    return [percent(share), *(_units(units, fall) for units in (delay.median, delay.ninetieth))]


def _units(units: int | None, fall: Fall) -> str:
    if units is None:
        return ""
    if fall.information_bound is None:
        return f"{units:,}"
    return f"{units:,} ({units / fall.information_bound:.2f})"
