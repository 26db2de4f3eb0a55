"""How single values are spread, which metrics there are to ask for, and how many single units are read."""

from __future__ import annotations

import numpy as np
import pytest

from promptab import InvalidInputError, Lab, NotFoundError, PromptVariant, gathering
from tests.clock import SettableClock
from tests.test_analyze import A, B, better_b, experiment_of, serve


async def test_a_distribution_counts_every_event_once_by_variant(lab: Lab) -> None:
    await experiment_of(lab)
    seconds = np.random.default_rng(1).gamma(2.0, 0.5, 300)
    dealt = await serve(lab, range(300), lambda variant, number: {"response_time": float(seconds[number])})
    found = {histogram.variant: histogram for histogram in await lab.metrics.distribution("greeting")}
    assert set(found) == {A, B}
    for key, histogram in found.items():
        values = seconds[dealt[key]]
        assert sum(histogram.counts) == len(values)
        edges = histogram.edges
        for count, low, high in zip(histogram.counts, edges[:-1], edges[1:], strict=True):
            assert count == ((values >= low) & (values < high)).sum()
    assert found[A].edges == found[B].edges
    assert found[A].edges[0] == seconds.min()


async def test_a_distribution_keeps_its_tail_in_one_bin(lab: Lab) -> None:
    """One call that hung for an hour may not squeeze all others into the first bin."""
    await experiment_of(lab)
    await serve(
        lab,
        range(200),
        lambda variant, number: {"response_time": 3600.0 if number == 7 else 1.0 + number / 200},
    )
    (first, second) = await lab.metrics.distribution("greeting")
    assert first.edges[-2] < 3.0
    assert first.edges[-1] > 3600.0
    assert first.counts[-1] + second.counts[-1] >= 1


async def test_a_distribution_is_of_the_measure_and_the_time_that_are_asked_for(
    lab: Lab, clock: SettableClock
) -> None:
    await experiment_of(lab)
    await serve(lab, range(40), lambda variant, number: {"cost": 0.5, "metrics": {"words": number}})
    clock.advance(hours=1)
    later = clock()
    await serve(lab, range(40, 60), lambda variant, number: {"metrics": {"words": 100 + number}})
    words = await lab.metrics.distribution("greeting", "words")
    assert sum(sum(histogram.counts) for histogram in words) == 60
    recent = await lab.metrics.distribution("greeting", "words", since=later)
    assert sum(sum(histogram.counts) for histogram in recent) == 20
    assert recent[0].edges[0] == 140.0
    constant = await lab.metrics.distribution("greeting", "cost")
    assert [sum(histogram.counts) for histogram in constant] == [
        histogram.counts[0] for histogram in constant
    ]


async def test_a_distribution_of_what_nobody_recorded_is_empty(lab: Lab) -> None:
    await experiment_of(lab)
    assert await lab.metrics.distribution("greeting") == ()
    await serve(lab, range(10), better_b)
    assert await lab.metrics.distribution("greeting") == ()
    with pytest.raises(NotFoundError, match="nobody"):
        await lab.metrics.distribution("nobody")
    with pytest.raises(InvalidInputError) as refused:
        await lab.metrics.distribution("greeting", "no measure!")
    assert refused.value.field == "measure"


async def test_a_metric_that_is_nowhere_declared_or_recorded_is_refused_with_those_that_are(lab: Lab) -> None:
    await experiment_of(lab, plan={"metrics": [{"name": "solved_twice"}], "minimum_units": 10})
    await serve(lab, range(40), lambda variant, number: {"success": True, "metrics": {"words": number}})
    with pytest.raises(NotFoundError) as refused:
        await lab.analyze("greeting", metrics=["word"])
    assert refused.value.key == "word"
    assert all(name in str(refused.value) for name in ("solved_twice", "success_rate", "words"))
    asked = ["words", "solved_twice", "cost", "success"]
    result = await lab.analyze("greeting", metrics=asked)
    assert list(result.metrics) == ["success_rate", "words", "solved_twice", "cost"]


async def test_few_units_are_permuted_unless_the_other_arm_is_huge(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    await experiment_of(lab)
    await serve(lab, range(40), lambda variant, number: {"response_time": 1.0 + (number * 7 % 40) / 40})
    few = (await lab.analyze("greeting", "fixed")).metrics["response_time"].differences[B]
    assert few.technique == "permutation"
    monkeypatch.setattr(gathering, "MOST_SINGLE_UNITS", 39)
    result = await lab.analyze("greeting", "fixed")
    many = result.metrics["response_time"].differences[B]
    assert (many.technique, many.value) == ("t", few.value)
    assert "fewer than 30 units: its intervals are rough" in result.caution


async def test_a_variant_without_any_unit_leaves_the_others_their_permutation(lab: Lab) -> None:
    versions = (A, B, "1.2.0")
    for version in versions:
        await lab.versions.create_version("greeting", "system", f"Hello {version}.", version)
    variants = [PromptVariant(version) for version in versions]
    await lab.experiments.create_experiment("greeting", "system", variants, salt="s")
    for number in range(60):
        choice = await lab.choose("greeting", user_id=f"u{number}")
        if choice.variant != "1.2.0":
            await choice.record(response_time=1.0 + (number * 7 % 60) / 60)
    differences = (await lab.analyze("greeting", "fixed")).metrics["response_time"].differences
    assert {key: found.technique for key, found in differences.items()} == {
        B: "permutation",
        "1.2.0": "not enough data",
    }
