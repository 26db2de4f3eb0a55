"""The sentences of the page around its tables."""

from __future__ import annotations

INTRODUCTION = """\
# Calibration

Does an interval of 95 % hold the truth in 95 of 100 experiments, and does a test at 5 % find a difference where there
is none in 5 of 100? This page says how often they did, in simulated experiments that go the way of real ones: units
arrive, are dealt, and bring events; events become sums over units; the analysis reads the sums. Only the database is
left out. Everything is seeded: the same code gives the same page.

    python -m tests.calibration --jobs 2        # measures it all, two at a time; writes measured.json and this page
    python -m tests.calibration --only dealing  # measures one section again and leaves the rest as it was
    python -m tests.calibration --missing       # measures what measured.json has no counts of, as after a run cut short
    python -m tests.calibration --page          # writes this page from measured.json
    python -m tests.calibration --quick         # a tenth of the experiments, printed and not written

A small version of it is part of the test suite (`tests/test_calibration.py`).

Each row is {null:,} experiments without an effect, for false positives, and {real:,} with one, for coverage and power
({dear:,} for the 95th percentile and after a change of weights; {null:,} of either kind for bandits; {dear:,} of either
kind for bets and beliefs; {dealt:,} for dealing). The effect, shown as a share of the base value, is the one that a
fixed horizon should find in 80 %: 2.80 mean standard errors.

**Simulated units.** Events per unit: exactly 1, or geometric with mean 5 or 20. Successes: 60 %, each unit with a rate
of its own from a beta distribution. Response times: lognormal with a mean of 1.2 s and 0.6 as the standard deviation of
the logarithm, each unit with a lognormal factor of its own; a 95th percentile of 3 s where that is the metric. Cost per
success: lognormal costs (0.8) over successes that are independent of them. "Correlation" is that of two events of one
unit. With one event per unit it cannot show: the three rows are the same experiment with other seeds, of which the 95th
percentile, being slow to work out, has one.

**What is held to a bound.**

- False positives at a fixed horizon: 5 % +- {tolerance:g} points in each row, and 5 % within the 95 % interval of all
  rows of a metric together. The 95th percentile may stay below (conservative), and such rows are named.
- False positives at any of 28 daily looks: the one-sided lower 99.9 % limit of their share at or under 5 %. "anytime"
  is the default plan, read from the first day on; "tuned" is a plan that is sharpest at 1,000 units, the size that
  these experiments come to, and so has the least to spare. It is read from 100 units in each arm on, as a winner is;
  below, an asymptotic confidence sequence is not to be believed, and "tuned, any size" shows why.
- Coverage, at a real effect: the one-sided upper 99.9 % limit of the share at or above 95 %; of all 28 looks
  together for the confidence sequences.
- The sample-ratio alarm at any of 28 looks: below 1 % where the dealing is right.

Power has no bound; it stands beside each row. So does, in some tables, what happens otherwise: "events as units" takes
each event for an observation of its own, where a unit has more than one; "peeking" is a t test at each look."""

VERDICT_TITLE = "Held or not held"
CHANCE = """\
p is the chance of a count so far off, or farther, where the true share just keeps the promise."""

STEADY_TITLE = "A day's units each day"
STEADY = """\
About 500 units in each arm, over 28 days at 50/50; each unit brings all its events when it arrives."""

RAMPED_TITLE = "90/10, then 50/50, and the base value moves"
RAMPED = """\
2,000 units; for two weeks one in ten is treated, then every second one, when the base value is 20 % higher in both
arms. Estimated within each epoch, and combined. "epochs mixed" pools the units of both."""

RETURNING_TITLE = "Units that come back"
RETURNING = """\
The first event of a unit is on the day of its arrival, the others on any later day ("come again"); or all units are
there on the first day, and their events are on any day ("there all along"). What a unit brought so far then changes
after it was counted, which the theory of a confidence sequence does not allow: without a measurement window the
analysis calls itself approximate. Here is how far off it is, without an effect. The same bound is asked of it."""

DEALING_TITLE = "Were the units dealt as the weights say?"
DEALING = """\
1,000 units each day, looked at on 28 days. The sequential alarm, a Bayes factor of 100, has to stay below 1 % where the
dealing is right (the first four rows); the other three show how often it sees what is wrong."""

GUARDRAILS_TITLE = "Guardrails"
GUARDRAILS = """\
The treatment is worse by exactly the margin, a tenth of the control's value, with 5 events per unit and a correlation
of 0.1. Both a pass and a fail are wrong, each allowed 5 %, in all 28 looks together for the sequential reading.
"not significant" is the careless reading: no difference was found, so it is taken to be safe."""

HISTORIES_TITLE = "CUPED: history taken out"
HISTORIES = """\
Response times of units of whom two in three have a history, in the same settings as above. "power without" is the raw
difference at the same effect."""

FEW_TITLE = "Few units"
FEW = """\
At a fixed horizon, where a real effect is half of the base value. Successes of units with one event each are compared
by Barnard's test and Newcombe's interval; all else is permuted below 30 units an arm. Tests of so few units may be
conservative. Newcombe's interval is an approximation whose coverage swings around 95 % with a handful of units:
"exactly" is what it comes to over all outcomes, without the chance of a simulation. The last two columns are false
positives of what the analysis does not use there: the t test of larger experiments, and Welch's with each arm's own
variance, to which an arm whose units are all alike is a certainty."""

BETS = """\
Bounded scores, one per unit, three units an arm each day, read by betting confidence sequences on each of 28 days."""

BELIEFS_TITLE = "Beliefs, looked at daily"
BELIEFS = """\
The Bayesian reading promises nothing about false positives, and this is what that means: how often it names a better
or a worse variant where both are the same, with 5 events per unit and a correlation of 0.1. "expected loss" is the rule
of the analysis: choosing the variant is expected to cost at most 0.5 % of the control's value, and choosing the control
more. A choice between equals costs nothing, so the rule is not concerned; whoever wants to know whether there is a
difference should be."""

ROLLOUTS_TITLE = "Wrong rollbacks and wrong promotions"
ROLLOUTS = """\
Streams of 20,000 units at 50/50 under a policy, looked at after every 5 units (4,000 looks) and after every 50 (400),
until `decide` rolls back or promotes; both alphas are 5 %, and that of the guardrails is shared among them. Units have
one event, or a geometric number with mean 10 and a correlation of 0.3 within a unit. Rates of one event a unit are read
by exact e-processes; scores of fewer than 100 units, and rates of several events a unit behind a bound, by betting, for
which half of their alpha is kept; everything else by asymptotic confidence sequences, and such rates with the variance
that they would have at their bound: with the one that they have, 6.5 % of the streams behind `refusal_rate <= 0.05`
were wrongly promoted at the margin.
Successes 90 %, refusals 5 %, response times of 1.2 s and costs of $ 0.004 per success (lognormal), relevance 0.7 of 1,
ratings 3.8 of 5. Every rollback and promotion that is counted was decided by `analyze` and `decide`; at which looks to
ask them is worked out by arrays, and a test holds both together at every look. "z test" is the careless way: any
guardrail alarms by a one-sided z test at 5 %, after every 5 units from 30 units an arm on."""
SITUATIONS = {
    "no effect": """\
Both arms are alike, and bounds are what they come to: every guardrail is only just kept, and every rollback and every
promotion is wrong.""",
    "at the margin": """\
The treatment is worse than the control by exactly as much as each guardrail allows, so a rollback is wrong; and not
better than that by anything, so a promotion is wrong too, although the rating, which decides, is really better: it has
to be held back by the guardrails.""",
}

QUANTILE_ROLLOUTS = """\
Both arms are alike, with a 95th percentile of response times of 3 s; the mean response time decides. A percentile is
sorted for, so these streams are looked at after every 5 units up to 1,000, and after every 50 from there on; a look is
left out where the standard error would have to be less than 0.4 times the true one for anything to be shown, and where
the estimate is not as far off as a failure takes. Cut are the other nine looks in ten after that. "z test" knows the
true standard error."""

DETECTIONS_TITLE = "How soon a fall is seen"
DETECTIONS = """\
A success rate that has fallen from 90 % at one event per unit, looked at after every 5 exposed units, alpha 5 %, in
streams of at most 20,000 units: behind an absolute bound of 90 %, where only treated units are watched, and beside a
concurrent control at 90 % (`success_rate >= control`) with the share r of the units treated. Counted are treated units
exposed before the rollback, over all streams: the median and the 90th percentile, and in brackets how many times the
information bound that is. That bound, what no rule of this alpha is below on average, is log(1/alpha)/KL(p1, p0) behind
a bound p0; and r log(1/alpha)/J with J = r KL(pT, p) + (1 - r) KL(pC, p) and p = r pT + (1 - r) pC beside a control.
Aimed at are medians of at most {bounded:g} times the first and {beside:g} times the second{missed}. "Seed 003" is the
rule of that document on the same streams: roll back when the mean of more than 100 events is under 0.8. In the last row
the bound is 0.8, which a rate of 82 % keeps."""
CLUSTERED_TITLE = "Units with several events"
CLUSTERED = """\
The same behind a bound where each unit has a geometric number of events with mean 10 and a correlation of 0.3, in 400
streams: fewer than 100 units are bet on, and from there on a confidence sequence goes on. Counted are units, ten events
each. By the confidence sequence alone, with all of alpha, nothing is rolled back before there are 100, and of 60
streams of falls from 90 % to 85, 80 and 70 % half took more than 450, 225 and 120. The rule of seed 003 takes events
for observations: it is quick, and rolls back where nothing fell."""
