"""Which variant wins, and why, or what is lacking."""

from __future__ import annotations

from collections.abc import Sequence

from promptab.analysis import sentences
from promptab.analysis.result import Check, MetricAnalysis


def winner_of(primary: MetricAnalysis, checks: Sequence[Check], control: str) -> tuple[str | None, str]:
    """Return the winner among the variants that `primary` compares, and why; or None and what is lacking."""
    worthy = {
        key: difference
        for key, difference in primary.differences.items()
        if difference.verdict == "better" and difference.size in {None, "large enough"}
    }
    failed = [check for check in checks if not check.passed]
    barred = {key for check in failed for key in check.variants}
    candidates = {key: difference for key, difference in worthy.items() if key not in barred}
    best = primary.model_copy(update={"differences": candidates}).better()
    of_all = any(not check.variants or control in check.variants for check in failed)
    if of_all or (failed and best is None):
        return None, "; ".join(f"{sentences.CHECK_WORDS[check.name]}: {check.detail}" for check in failed)
    if not primary.differences:
        return None, f"Nothing is compared: {control} is the only variant that is served"
    if best is None:
        why = "; ".join(difference.sentence for difference in primary.differences.values())
        better = any(difference.verdict == "better" for difference in primary.differences.values())
        shown = f"No variant is shown to be better than {control}" + (" by enough" if better else "")
        return None, f"{shown}: {why}"
    rivals = len(candidates)
    beside = (
        f"; of the {rivals} variants that are better than {control} it has the best estimate"
        if rivals > 1
        else ""
    )
    return best, worthy[best].sentence + beside
