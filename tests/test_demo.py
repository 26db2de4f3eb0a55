"""The demo's story on real stores: deterministic, honest about winners, and gentle with what it finds."""

from __future__ import annotations

from pathlib import Path

import pytest

import promptab
from promptab import AnalysisResult, Deployment, Lab, StateError, Tokens
from promptab.demo import Case, Demo, Fall, Reply, SimulatedModel
from promptab.demo.answering import case_of
from promptab.demo.prompts import BETTER, WORSE, AddedPrompts, add_prompts
from promptab.stats.summary import UnitSums

ROOT = Path(__file__).parents[1]


class SameForAll:
    """Answers every prompt alike: every third question fails."""

    name = "same for all"
    success_rule = "the question is not the third one"

    async def answer(self, prompt: str, case: Case) -> Reply:
        return Reply(case.turn != 2, float(len(prompt)), Tokens(total=10), cost=None, rating=None)


async def told(
    lab: Lab, *, seed: int = 7, customers: int = 600, worse: int = 60
) -> tuple[AnalysisResult, Demo, Fall]:
    """Take every step of the demo with the simulated model."""
    added = await add_prompts(lab, None, lock_path=Path("unused"))
    demo = Demo(lab, SimulatedModel(seed), added.first, seed=seed)
    _, experiment = await demo.release()
    await demo.serve(customers, on_customer=lambda: None)
    comparison = await lab.analyze(experiment.experiment_id)
    await demo.end_experiment(comparison)
    third = await demo.release_worse()
    await demo.serve(worse, on_customer=lambda: None)
    fall = demo.fall(third)
    await demo.roll_back(fall)
    return comparison, demo, fall


def moves(history: list[Deployment]) -> list[tuple[str, str | None, str | None]]:
    return [(move.action, move.previous_version, move.version) for move in history]


async def test_winner_is_promoted_and_the_bad_version_is_taken_back(lab: Lab) -> None:
    comparison, demo, fall = await told(lab)
    assert comparison.winner == "1.0.1"
    history = await demo.history()
    assert moves(history) == [
        ("promote", None, "1.0.0"),
        ("promote", "1.0.0", "1.0.1"),
        ("promote", "1.0.1", "1.0.2"),
        ("rollback", "1.0.2", "1.0.1"),
    ]
    assert history[1].reason == comparison.reason
    assert history[3].reason == fall.reason
    assert history[3].evidence == fall.evidence
    assert fall.is_shown
    choice = await demo.next_choice()
    assert choice.version is not None
    assert (choice.version.version, choice.source) == ("1.0.1", "environment")
    experiment = await lab.experiments.get_experiment(comparison.experiment_id)
    assert experiment is not None
    assert (experiment.status, experiment.winner) == ("completed", "1.0.1")


async def test_same_seed_gives_the_same_numbers() -> None:
    runs = []
    for _ in range(2):
        async with promptab.open("sqlite:///:memory:") as lab:
            comparison, _, fall = await told(lab, seed=3, customers=200)
            runs.append((comparison.units, comparison.metrics, fall))
    assert runs[0] == runs[1]


async def test_other_seed_gives_other_numbers() -> None:
    runs = []
    for seed in (3, 4):
        async with promptab.open("sqlite:///:memory:") as lab:
            comparison, _, _ = await told(lab, seed=seed, customers=200)
            runs.append(comparison.metrics)
    assert runs[0] != runs[1]


async def test_nothing_is_promoted_without_a_winner(lab: Lab) -> None:
    added = await add_prompts(lab, None, lock_path=Path("unused"))
    demo = Demo(lab, SameForAll(), added.first, seed=1)
    _, experiment = await demo.release()
    served = await demo.serve(300, on_customer=lambda: None)
    comparison = await lab.analyze(experiment.experiment_id)
    assert comparison.winner is None
    assert await demo.end_experiment(comparison) is None
    stopped = await lab.experiments.get_experiment(experiment.experiment_id)
    assert stopped is not None
    assert stopped.status == "stopped"
    assert (await demo.next_choice()).version == await lab.versions.get_version_by_id(added.first.version_id)
    # the rest of the story goes on from what is live
    third = await demo.release_worse()
    await demo.serve(300, on_customer=lambda: None)
    fall = demo.fall(third)
    assert not fall.is_shown
    assert "not shown to be worse" in fall.reason
    assert (await demo.roll_back(fall)).version == added.first.version
    assert served.customers == 300


async def test_every_call_is_recorded_under_the_version_that_was_served(lab: Lab) -> None:
    added = await add_prompts(lab, None, lock_path=Path("unused"))
    demo = Demo(lab, SimulatedModel(7), added.first, seed=7)
    _, experiment = await demo.release()
    through: list[None] = []
    served = await demo.serve(120, on_customer=lambda: through.append(None))
    comparison = await lab.analyze(experiment.experiment_id)
    estimates = comparison.metrics["success_rate"].estimates
    assert {key: (sums.units, sums.n) for key, sums in served.by_version.items()} == {
        key: (estimate.units, estimate.events) for key, estimate in estimates.items()
    }
    for key, sums in served.by_version.items():
        assert estimates[key].value == pytest.approx(sums.s / sums.n, rel=1e-12)
    assert served.calls == sum(1 + customer % 6 for customer in range(1, 121))
    assert len(through) == 120


async def test_serve_raises_what_a_call_raises(lab: Lab) -> None:
    class Broken(SameForAll):
        async def answer(self, prompt: str, case: Case) -> Reply:
            raise StateError(f"no line to {case.customer} for {len(prompt)} characters")

    added = await add_prompts(lab, None, lock_path=Path("unused"))
    demo = Demo(lab, Broken(), added.first, seed=1)
    await demo.release()
    with pytest.raises(StateError, match="no line to"):
        await demo.serve(20, on_customer=lambda: None)


async def test_rollback_refuses_when_somebody_else_moved_production(lab: Lab) -> None:
    _, demo, fall = await told(lab, customers=100)
    before = await demo.history()
    with pytest.raises(StateError, match=r"production is no longer 1\.0\.2"):
        await demo.roll_back(fall)
    assert await demo.history() == before


async def test_prompts_folder_is_pushed_and_left_as_it_was(lab: Lab, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in sorted((ROOT / "prompts").rglob("*")) if path.is_file()}
    added = await add_prompts(lab, ROOT / "prompts", lock_path=tmp_path / "promptab.lock")
    assert added.notes == []
    assert {version.label for version in added.pushed} >= {"system/support_reply@1.0.0", "system/tone@1.0.0"}
    assert added.first.label == "system/support_reply@1.0.0"
    assert added.first.includes
    after = {path: path.read_bytes() for path in sorted((ROOT / "prompts").rglob("*")) if path.is_file()}
    assert after == before


async def added_from(lab: Lab, folder: Path, files: dict[str, str]) -> AddedPrompts:
    for name, text in files.items():
        path = folder / "prompts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return await add_prompts(lab, folder / "prompts", lock_path=folder / "promptab.lock")


async def test_prompt_with_other_variables_is_replaced_by_the_demos_own(lab: Lab, tmp_path: Path) -> None:
    added = await added_from(lab, tmp_path, {"system/support_reply.md": "Answer {{ ticket }}."})
    assert added.first.label == "system/demo_reply@1.0.0"
    assert [version.label for version in added.pushed] == ["system/support_reply@1.0.0"]
    assert len(added.notes) == 1
    assert "brings its own" in added.notes[0]


async def test_bad_file_is_named_and_the_others_are_pushed(lab: Lab, tmp_path: Path) -> None:
    files = {"system/bad.md": "Hello\n{% if %}", "system/good.md": "Hello {{ name }}."}
    added = await added_from(lab, tmp_path, files)
    assert [version.label for version in added.pushed] == ["system/good@1.0.0"]
    assert added.first.label == "system/support_reply@1.0.0"
    assert any("system/bad.md" in note for note in added.notes)


async def test_store_that_holds_prompts_is_refused_and_left_alone(lab: Lab) -> None:
    await lab.versions.create_version("mine", "system", "Hello")
    with pytest.raises(StateError, match="give it a new store"):
        await add_prompts(lab, ROOT / "prompts", lock_path=Path("unused"))
    assert [version.label for version in await lab.versions.list_versions()] == ["system/mine@1.0.0"]


async def success_of(prompt: str, *, customers: int = 400) -> list[bool]:
    model = SimulatedModel(1)
    return [(await model.answer(prompt, case_of(number, 0))).success for number in range(1, customers)]


async def test_simulated_model_reads_the_prompt() -> None:
    plain, better, worse = (
        await success_of("Help."),
        await success_of(f"Help. {BETTER}"),
        await success_of(f"Help. {WORSE}"),
    )
    # the same customers with the same luck: the sentence is all that differs
    assert all(after >= before for before, after in zip(plain, better, strict=True))
    assert all(after <= before for before, after in zip(plain, worse, strict=True))
    assert sum(worse) < sum(plain) < sum(better)


async def test_simulated_customers_differ_from_one_another() -> None:
    model = SimulatedModel(1)
    totals = []
    for number in range(1, 301):
        replies = [await model.answer("Help.", case_of(number, turn)) for turn in range(6)]
        totals.append((6.0, float(sum(reply.success for reply in replies))))
    sums = UnitSums.of(totals)
    share = sums.s / sums.n
    # of independent calls the variance between customers would be 6 p (1 - p)
    assert sums.rr / sums.units > 1.5 * 6 * share * (1 - share)


@pytest.mark.parametrize("sentence", ["", BETTER, WORSE], ids=["plain", "better", "worse"])
async def test_simulated_replies_are_within_the_bounds_of_events(sentence: str) -> None:
    # enough for the far ends of the draws: about one normal draw in 16,000 lies 3.8 deviations below its mean
    for seed in range(20):
        model = SimulatedModel(seed)
        for customer in range(1, 2_001):
            reply = await model.answer(f"Help. {sentence}", case_of(customer, 0))
            assert reply.seconds > 0
            assert reply.cost is not None
            assert reply.cost > 0
            assert reply.tokens.output is not None
            assert reply.tokens.output > 0
            assert reply.rating is None or 1 <= reply.rating <= 5


@pytest.mark.parametrize(("after", "shown"), [(20, True), (58, False), (80, False), (0, True)])
def test_fall_is_shown_only_where_chance_is_no_explanation(after: int, *, shown: bool) -> None:
    def sums(successes: int) -> UnitSums:
        return UnitSums.of([(1.0, float(number < successes)) for number in range(100)])

    fall = Fall.between("1.0.2", "1.0.1", sums(after), sums(60))
    assert fall.is_shown is shown
    assert fall.reason.startswith("success fell") is shown


@pytest.mark.parametrize(("customers", "shown"), [(10, True), (2, False)])
def test_fall_without_any_variation_is_judged_by_permutation(customers: int, *, shown: bool) -> None:
    always, never = UnitSums.of([(1.0, 1.0)] * customers), UnitSums.of([(1.0, 0.0)] * customers)
    for after, before, rate, is_fall in ((never, always, 0.0, shown), (always, never, 1.0, False)):
        fall = Fall.between("1.0.2", "1.0.1", after, before)
        assert (fall.interval, fall.rate, fall.calls) == (None, rate, customers)
        assert fall.is_shown is is_fall
