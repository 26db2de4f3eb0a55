"""Test data and evaluators of GitHub's `.prompt.yml`, as cases and back.

Test data are rows of variables, and every evaluator holds for every row. Evaluators of strings compare as `gh models
eval` does: without regard to upper and lower case, save `equals`. Those that ask a model to judge are no cases.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from promptab.cases import Case, Expectation, check_cases
from promptab.formats.foreign import ForeignKeys

_OURS = {
    "equals": "equals",
    "contains": "contains",
    "startsWith": "starts_with",
    "endsWith": "ends_with",
}  # in the order in which GitHub looks for the one that an evaluator has
_UNKNOWN_THERE = ("not_contains", "regex", "json_schema", "python")


class ReadCases(NamedTuple):
    documents: list[dict[str, Any]]
    """What `check_cases` takes."""
    notes: list[str]
    """What of the file no case says; it stays in the metadata."""


class WrittenCases(NamedTuple):
    test_data: list[dict[str, Any]]
    evaluators: list[Any]
    lost: list[str]


def read_cases(keys: ForeignKeys, names: Collection[str]) -> ReadCases:
    """Read the cases of a file whose messages have these variables.

    Raises `PromptFileError` with the line of test data that are no variables.
    """
    rows, evaluators = keys.list("testData"), keys.list("evaluators")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            keys.refuse(("testData", index), "expected variables with their values")
    notes = [
        f"evaluators[{index}]: asks a model to judge, or is not known here; kept in the metadata, and no case has it"
        for index, evaluator in enumerate(evaluators)
        if _string(evaluator) is None
    ]
    if unused := sorted({key for row in rows for key in row} - set(names)):
        notes.append(
            f"testData: {', '.join(unused)}: no variable of the messages; kept in the metadata, and no case has it"
        )
    if evaluators and not rows:
        notes.append("evaluators: there are no test data to hold them to; kept in the metadata")
    return ReadCases(_documents(rows, evaluators, names), notes)


def write_cases(
    cases: Sequence[Case] | None, kept: Mapping[str, Any], names: Collection[str]
) -> WrittenCases:
    """Write cases; what an import has kept is written as it was where the cases still say the same."""
    rows, evaluators = _list(kept.get("testData")), _list(kept.get("evaluators"))
    unchanged = cases is None or _same(cases, rows, evaluators, names)
    if unchanged:
        return WrittenCases(rows, evaluators, [])
    assert cases is not None  # noqa: S101 - narrows the type
    others = [evaluator for evaluator in evaluators if _string(evaluator) is None]
    expected = {case.expect.model_dump_json(): case.expect for case in cases}
    lost = []
    if any(case.name != f"case {index}" for index, case in enumerate(cases, start=1)):
        lost.append("tests: their names; GitHub's test data have none")
    if any(case.messages for case in cases):
        lost.append("tests.messages: GitHub's test data are variables only")
    if len(expected) > 1:
        lost.append(
            "tests.expect: GitHub's evaluators hold for all test data, and these differ from case to case"
        )
        return WrittenCases([dict(case.variables) for case in cases], others, lost)
    common = next(iter(expected.values()), Expectation())
    written, not_held = _evaluators(common)
    return WrittenCases([dict(case.variables) for case in cases], [*written, *others], [*lost, *not_held])


def _documents(
    rows: Sequence[Any], evaluators: Sequence[Any], names: Collection[str]
) -> list[dict[str, Any]]:
    expected: dict[str, Any] = {}
    for evaluator in evaluators:
        found = _string(evaluator)
        if found is None:
            continue
        kind, text = found
        if kind == "equals":
            expected["equals"] = text
        else:
            expected.setdefault(kind, []).append(text)
            expected["ignore_case"] = True
    return [
        {"variables": {key: value for key, value in row.items() if key in names}, "expect": expected}
        for row in rows
    ]


def _string(evaluator: object) -> tuple[str, str] | None:
    """Return what a string evaluator compares with, by the name that it has here; None for any other evaluator."""
    string = evaluator.get("string") if isinstance(evaluator, Mapping) else None
    if not isinstance(string, Mapping):
        return None
    found = ((ours, string.get(theirs)) for theirs, ours in _OURS.items())
    return next(((ours, text) for ours, text in found if isinstance(text, str) and text), None)


def _same(
    cases: Sequence[Case], rows: Sequence[Any], evaluators: Sequence[Any], names: Collection[str]
) -> bool:
    if not all(isinstance(row, Mapping) for row in rows):
        return False
    return tuple(cases) == check_cases("testData", _documents(rows, evaluators, names))


def _evaluators(expected: Expectation) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the evaluators of an expectation, and what of it GitHub cannot say."""
    written = [] if expected.equals is None else [_evaluator("equals", expected.equals)]
    for theirs, ours in _OURS.items():
        if ours != "equals":
            written += [_evaluator(theirs, text) for text in getattr(expected, ours)]
    lost = [
        f"tests.expect.{key}: GitHub has no such evaluator"
        for key in _UNKNOWN_THERE
        if getattr(expected, key) not in (None, ())
    ]
    if not expected.ignore_case and (expected.contains or expected.starts_with or expected.ends_with):
        lost.append("tests.expect: upper and lower case, to which GitHub's evaluators are blind")
    return written, lost


def _evaluator(kind: str, text: str) -> dict[str, Any]:
    return {"name": f"{kind} {text[:40]}", "string": {kind: text}}


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
