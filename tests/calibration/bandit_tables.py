"""Tables of bandits: what the analysis promises after them, and what they earn."""

from __future__ import annotations

import math

from tests.calibration.bandits import (
    BATCH_UNITS,
    BATCHES,
    DRIFT,
    LOOKS_PER_BATCH,
    MANY_EVENTS,
    MILLIONTH,
    NULL_SETTINGS,
    REAL_SETTINGS,
    SLICE,
    BanditSetting,
)
from tests.calibration.cells import Found, tally_of
from tests.calibration.checks import COVERAGE, FIXED, FIXED_OR_BELOW, Check, Promise, check
from tests.calibration.checks import LOOKS as ANY_OF_28
from tests.calibration.markdown import Section, heading, marked, percent, table
from tests.calibration.streams import CORRELATION
from tests.calibration.tally import Tally

LOOKS = BATCHES * LOOKS_PER_BATCH
ANY_LOOK = ANY_OF_28._replace(
    sentence=f"bandits, {LOOKS} looks: lower 99.9 % limit of false positives at most 5 %"
)

NULL_TITLE = "Bandits: no effect"
NULL = f"""\
{BATCHES * BATCH_UNITS:,} units in {BATCHES} batches; after each the weights move by the production rule (floor 0.05);
{100.0 * SLICE:.0f} % of the units are dealt alike. Units have one event, or a geometric number with mean
{MANY_EVENTS} and a correlation of {CORRELATION:g} within a unit, all at once: successes of 60 %, or times as above.
"weighted" is what the analysis of a bandit does, adaptively weighted AIPW: at the end, and at any of {LOOKS} looks by
a plan that is sharpest at 1,000 units. "slice" is the uniform slice alone, analysed like any experiment, at any of
these looks. "naive" is a t test of all units at the end, as if nothing had followed anything: it errs where the base
value moves while the weights do. With more than two arms any of the differences to the first counts, each at its share
of 5 %; as they share the first, together they err less. "worst withdrawn": halfway the arm with the lowest rate, the
control apart, is taken out; the slice goes on among the two that are left, as an epoch of its own, and these two are
what is compared from there on, still at half of 5 %."""

REAL_TITLE = "Bandits: what they earn"
REAL = """\
The same with one event per unit where arms differ: 60 and 65 %; 60, 62 and 67 %; 60, 58, 60, 63 and 68 %; times of 1.2
and 1.12 s. "regret" is what 1,000 units lose against serving the best arm alone (points of a success; of times,
seconds), the uniform slice included, and beside it as a share of what dealing alike loses. "best arm" is its mean share
of new units outside the slice at the end. The biases are of the best arm's difference to the control; that of the
weighted one also in standard errors, of which it keeps up to a tenth. It is the estimator's own
(`promptab/stats/adaptive.py`): the sum of weighted scores is right on average, but is divided by the sum of their
weights h, and those followed the outcomes too; where the difference showed early the later weights are small.
"undivided" are the same errors without that, each run counted by its own sum of weights: what is left there is chance,
with a standard error of some 0.06 points. Epsilon-greedy and UCB deal by the same shares in every run, and divide by
the same number. Intervals do not suffer: error and standard error are divided alike."""


def bandits(found: Found) -> Section:
    rows: list[list[str]] = []
    checks: list[Check] = []
    for setting in NULL_SETTINGS:
        tally = tally_of(found, "bandits", setting)
        columns = [percent(tally.share("naive"))]
        at_the_end = FIXED if len(setting.arms) == 2 else FIXED_OR_BELOW
        promises = (("weighted", at_the_end), ("weighted, looks", ANY_LOOK), ("slice, looks", ANY_LOOK))
        for name, promise in promises:
            columns.append(_held(checks, tally, name, promise, _label(setting)))
        rows.append([*_row(setting), *columns])
    headings = [
        "dealt by",
        "arms",
        "events",
        "",
        "naive",
        "weighted",
        "weighted, any look",
        "slice, any look",
    ]
    return Section(NULL_TITLE, f"## {NULL_TITLE}\n\n{NULL}\n\n{table(headings, rows)}", checks)


def earning(found: Found) -> Section:
    rows: list[list[str]] = []
    checks: list[Check] = []
    for setting in REAL_SETTINGS:
        tally = tally_of(found, "earning", setting)
        regret = _mean(tally, "regret")
        columns = [f"{1_000.0 * regret:.1f}", percent(regret / _alike(setting), digits=0)]
        columns += [percent(_mean(tally, "best"), digits=0), _points(setting, _mean(tally, "naive bias"))]
        columns += _weighted_bias(setting, tally)
        columns.append(percent(1.0 - tally.share("naive missed")))
        for name in ("weighted missed", "weighted, looks missed"):
            columns.append(_held(checks, tally, name, COVERAGE, _label(setting), covers=True))
        columns += [percent(tally.share(name)) for name in ("weighted", "weighted, looks", "slice, looks")]
        rows.append([*_row(setting), *columns])
    headings = [
        "dealt by",
        "arms",
        "events",
        "",
        "regret",
        "of uniform's",
        "best arm",
        "naive bias",
        "weighted bias",
        "in standard errors",
        "undivided",
        "naive coverage",
        "weighted coverage",
        "coverage, all looks",
        "power, weighted",
        "at any look",
        "slice, at any look",
    ]
    return Section(REAL_TITLE, f"## {REAL_TITLE}\n\n{REAL}\n\n{table(headings, rows)}", checks)


def _held(
    checks: list[Check], tally: Tally, name: str, promise: Promise, label: str, *, covers: bool = False
) -> str:
    share = tally.share(name)
    told = percent(1.0 - share if covers else share)
    checks.append(check(promise, tally, name, where=f"{label}, {name}", told=told))
    return marked(told, checks[-1])


def _row(setting: BanditSetting) -> list[str]:
    what = heading(setting.metric)
    if setting.drift:
        what = f"{what}, rising by {100.0 * DRIFT:.0f} points"
    return [setting.rule, str(len(setting.arms)), str(setting.events), what]


def _label(setting: BanditSetting) -> str:
    rule, arms, events, what = _row(setting)
    return f"{rule}, {arms} arms, {events} event{'s' if setting.events > 1 else ''}, {what}"


def _mean(tally: Tally, name: str) -> float:
    return MILLIONTH * tally.counts[name] / tally.runs


def _weighted_bias(setting: BanditSetting, tally: Tally) -> list[str]:
    """Return it as an amount, in standard errors of one experiment, and without the division by the weights."""
    bias = _mean(tally, "weighted bias")
    se = math.sqrt(_mean(tally, "weighted square") - bias * bias)
    undivided = _mean(tally, "weighted product") / _mean(tally, "divisor")
    return [_points(setting, bias), f"{bias / se:+.2f}", _points(setting, undivided)]


def _alike(setting: BanditSetting) -> float:
    """Return the regret per unit of dealing all arms alike."""
    return float(setting.gains.max() - setting.gains.mean())


def _points(setting: BanditSetting, bias: float) -> str:
    return f"{100.0 * bias:+.2f} points" if setting.metric == "success_rate" else f"{bias:+.4f} s"
