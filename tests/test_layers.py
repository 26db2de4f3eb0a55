"""Arrows point down: a module imports only from its own layer's floor downwards, and edges do not know one another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "promptab"

FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "checks", "recent"}),
    frozenset({"records", "event_ids", "shadow_place", "shadow_budget"}),
    frozenset({"stats"}),
    frozenset({"plan", "guardrails"}),
    frozenset({"policy", "bandit"}),
    frozenset({"models"}),
    frozenset({"criteria", "semver", "allocation", "templates", "lifecycle", "measures", "queueing"}),
    frozenset({"calls", "tracking"}),
    frozenset({"cases", "content", "diff", "experiment_rules", "live_experiment"}),
    frozenset({"exclusion"}),
    frozenset({"analysis", "snapshot"}),
    frozenset({"decisions"}),
    frozenset({"alerts"}),
    frozenset({"stores", "library"}),
    frozenset(
        {
            "formats",
            "managed",
            "resolving",
            "starting",
            "gathering",
            "totalling",
            "exposing",
            "snapshot_file",
            "leading",
            "alerting",
            "spelling",
        }
    ),
    frozenset({"case_keeping", "moving", "decision_keeping"}),
    frozenset({"pointing"}),
    frozenset({"guarding"}),
    frozenset({"deploying", "assigning", "access", "changing_policy", "acting"}),
    frozenset({"analysing", "placing"}),
    frozenset({"recording", "steering"}),
    frozenset({"planning", "exporting"}),
    frozenset({"retention"}),
    frozenset({"versions", "experiments", "metrics", "rollout", "delivering"}),
    frozenset({"choice", "rebalancing"}),
    frozenset({"watching"}),
    frozenset({"running_beside"}),
    frozenset({"choosing"}),
    frozenset({"fallback"}),
    frozenset({"sending"}),
    frozenset({"shadowing"}),
    frozenset({"completing", "trying"}),
    frozenset({"lab", "sync", "copying", "doctor", "report"}),
    frozenset({"opening", "demo"}),
    frozenset({"cli", "server", "testing", "integrations"}),
    frozenset({"__main__"}),
)
"""From the ground up; names are those of the modules and packages directly in promptab/."""

BESIDE = frozenset({("checks", "errors"), ("diff", "content"), ("copying", "sync"), ("doctor", "sync")})
"""What may be imported from the same floor: (who, whom). Edges are on one floor, so none of them may."""

FACE = "the package itself"


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    """Return the name directly in promptab/ that a file belongs to."""
    inside = path.relative_to(PACKAGE)
    return inside.parts[0].removesuffix(".py")


def floor_of(part: str) -> int:
    for height, floor in enumerate(FLOORS):
        if part in floor:
            return height
    raise AssertionError(f"promptab/{part} is on no floor; give it one in {Path(__file__).name}")


def imported_parts(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield (part, line) of every import out of promptab that runs, inside functions too."""
    for node in running_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from in_promptab(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            if node.module == "promptab":
                for alias in node.names:
                    found = (PACKAGE / alias.name).is_dir() or (PACKAGE / f"{alias.name}.py").is_file()
                    yield (alias.name if found else FACE), node.lineno
            else:
                yield from in_promptab(node.module or "", node.lineno)


def in_promptab(module: str, line: int) -> Iterator[tuple[str, int]]:
    package, _, rest = module.partition(".")
    if package == "promptab":
        yield (rest.split(".")[0] or FACE), line


def running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node but those under `if TYPE_CHECKING`, which never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            for other in node.orelse:
                yield other
                yield from running_nodes(other)
            continue
        yield node
        yield from running_nodes(node)


def wrong_arrows(path: Path, source: str) -> list[str]:
    """Return what a file imports from above itself, or from beside itself without leave."""
    own = part_of(path)
    if own == "__init__":
        return []
    wrong = []
    for part, line in imported_parts(ast.parse(source)):
        if part == own or (own, part) in BESIDE:
            continue
        if part == FACE:
            # the face imports nearly everything, so only those above all of it may import it
            if floor_of(own) < floor_of("cli"):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports promptab itself")
        elif floor_of(part) >= floor_of(own):
            wrong.append(f"{path.relative_to(ROOT)}:{line} imports promptab.{part}")
    return wrong


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_imports_only_from_below(path: Path) -> None:
    assert wrong_arrows(path, path.read_text(encoding="utf-8")) == []


def test_every_part_of_the_package_has_a_floor() -> None:
    parts = {part_of(path) for path in modules()} - {"__init__"}
    assert parts <= frozenset().union(*FLOORS)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("models.py", "from promptab.lab import Lab"),
        ("models.py", "def late():\n    from promptab.stores.base import Store"),
        ("models.py", "import promptab.versions"),
        ("stores/sql.py", "from promptab import snapshot, versions"),
        ("metrics.py", "from promptab import Lab"),
        ("versions.py", "from promptab.metrics import MetricsCollector"),
        ("cli/main.py", "from promptab.integrations.openai import wrap"),
        ("models.py", "if TYPE_CHECKING:\n    pass\nelse:\n    from promptab.lab import Lab"),
    ],
    ids=[
        "up",
        "up_in_a_function",
        "plain_import",
        "name_of_a_module",
        "the_face",
        "beside",
        "edge_to_edge",
        "else",
    ],
)
def test_an_import_that_does_not_point_down_is_found(module: str, line: str) -> None:
    assert len(wrong_arrows(PACKAGE / module, line)) == 1


def test_an_import_for_the_type_checker_alone_is_allowed() -> None:
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from promptab.lab import Lab"
    assert wrong_arrows(PACKAGE / "models.py", source) == []
