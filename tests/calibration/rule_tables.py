"""Tables of single rules: dealing, guardrails, history, few units, bets and beliefs."""

from __future__ import annotations

from tests.calibration import prose
from tests.calibration.cells import BELIEVED, FEW, GUARDED, HISTORIES, Found, Pair, pair_of, tally_of
from tests.calibration.checks import (
    ALARM,
    COVERAGE,
    FIXED,
    FIXED_OR_BELOW,
    LOOKS,
    SAFETY,
    Check,
    Promise,
    check,
)
from tests.calibration.dealing import BROKEN, DEALINGS
from tests.calibration.markdown import Section, heading, marked, percent, population_columns, table
from tests.calibration.small_samples import SCORES, exact_coverage


def dealing(found: Found) -> Section:
    rows: list[list[str]] = []
    checks: list[Check] = []
    for label in (*DEALINGS, *BROKEN):
        tally = tally_of(found, "dealing", label)
        alarms = percent(tally.share("sequential"), digits=2)
        if label in DEALINGS:
            checks.append(check(ALARM, tally, "sequential", where=label, told=alarms))
            alarms = marked(alarms, checks[-1])
        others = ("daily 0.001", "daily 0.05", "once 0.001")
        rows.append([label, alarms, *(percent(tally.share(name), digits=2) for name in others)])
    headings = [
        "units dealt",
        "Bayes factor at 100",
        "chi-square daily at 0.001",
        "daily at 0.05",
        "once at 0.001",
    ]
    return _section(prose.DEALING_TITLE, f"{prose.DEALING}\n\n{table(headings, rows)}", checks)


def guardrails(found: Found) -> Section:
    rows: list[list[str]] = []
    checks: list[Check] = []
    for population in GUARDED:
        pair, metric = pair_of(found, "guardrails", population), heading(population.metric)
        row = [metric]
        for how in ("fixed", "sequential"):
            for verdict in ("pass", "fail"):
                name = f"{how} {verdict}"
                told = percent(pair.null.share(name))
                checks.append(check(SAFETY, pair.null, name, where=f"{metric}, {name}", told=told))
                row.append(marked(told, checks[-1]))
        row.append(percent(pair.null.share("careless")))
        row += [percent(pair.real.share(f"{how} pass")) for how in ("fixed", "sequential")]
        rows.append(row)
    headings = [
        "guardrail",
        "fixed: wrong pass",
        "wrong fail",
        "28 looks: wrong pass",
        "wrong fail",
        '"not significant" at the margin',
        "no harm: fixed pass",
        "no harm: pass in 28 looks",
    ]
    return _section(prose.GUARDRAILS_TITLE, f"{prose.GUARDRAILS}\n\n{table(headings, rows)}", checks)


def histories(found: Found) -> Section:
    rows: list[list[str]] = []
    checks: list[Check] = []
    for label in HISTORIES:
        pair = pair_of(found, "histories", label)
        row = [label, percent(pair.null.share("variance saved") / 1_000)]
        for name, promise in (("fixed", FIXED), ("sequential", LOOKS)):
            row += _kept(checks, pair, name, promise, label)
            if name == "fixed":
                row.append(percent(pair.real.share("raw")))
        rows.append(row)
    headings = [
        "history",
        "variance saved",
        "fixed: false positives",
        "coverage",
        "power",
        "power without",
        "28 looks: false positives",
        "coverage",
        "power",
    ]
    return _section(prose.HISTORIES_TITLE, f"{prose.HISTORIES}\n\n{table(headings, rows)}", checks)


def few(found: Found) -> Section:
    rows: list[list[str]] = []
    checks: list[Check] = []
    for one in FEW:
        pair = pair_of(found, "few", one)
        metric, sizes = heading(one.population.metric), f"{one.treated} and {one.untreated}"
        kept = _kept(checks, pair, "fixed", FIXED_OR_BELOW, f"{metric}, {sizes} units")
        exact = ""
        if one.population.events == 1:
            assert pair.effect is not None
            exact = percent(exact_coverage(one.treated, one.untreated, effect=pair.effect))
            checks[-1] = checks[-1]._replace(told=f"{checks[-1].told}, exactly {exact}")
        naive = [percent(pair.null.share(name)) for name in ("t", "plain Welch")]
        rows.append([metric, *population_columns(one.population), sizes, *kept[:2], exact, kept[2], *naive])
    headings = [
        "metric",
        "events",
        "correlation",
        "units treated and not",
        "false positives",
        "coverage",
        "exactly",
        "power",
        "t test",
        "plain Welch test",
    ]
    text = f"{prose.FEW}\n\n{table(headings, rows)}"
    rows = []
    for label in SCORES:
        pair = pair_of(found, "bets", label)
        kept = _kept(checks, pair, "betting", LOOKS, f"bets, {label}")
        rows.append([label, *kept, percent(pair.null.share("t"))])
    headings = ["scores", "false positives, 28 looks", "coverage, 28 looks", "power", "t test daily"]
    return _section(prose.FEW_TITLE, f"{text}\n\n{prose.BETS}\n\n{table(headings, rows)}", checks)


def beliefs(found: Found) -> Section:
    rows = []
    for population in BELIEVED:
        tally = tally_of(found, "beliefs", population)
        names = ("probability at the end", "probability", "loss at the end", "loss")
        rows.append([heading(population.metric), *(percent(tally.share(name)) for name in names)])
    headings = [
        "metric",
        "P(better) beyond 95 %: one look",
        "28 looks",
        "expected loss: one look",
        "28 looks",
    ]
    return _section(prose.BELIEFS_TITLE, f"{prose.BELIEFS}\n\n{table(headings, rows)}", [])


def _kept(checks: list[Check], pair: Pair, name: str, promise: Promise, where: str) -> list[str]:
    """Return false positives, coverage and power as the table shows them, and add the checks of the first two."""
    told = [
        percent(pair.null.share(name)),
        percent(1.0 - pair.real.share(f"{name} missed")),
        percent(pair.real.share(name)),
    ]
    of_row = [
        check(promise, pair.null, name, where=f"{where}, {name}: false positives", told=told[0]),
        check(COVERAGE, pair.real, f"{name} missed", where=f"{where}, {name}: coverage", told=told[1]),
    ]
    checks += of_row
    return [*(marked(one.told, one) for one in of_row), told[2]]


def _section(title: str, text: str, checks: list[Check]) -> Section:
    return Section(title, f"## {title}\n\n{text}", checks)
