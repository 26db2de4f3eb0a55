"""The pytest plugin: its fixtures in every mode of pytest-asyncio, and what forcing a variant does and undoes."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from promptab import InvalidInputError, Lab, NotFoundError, PromptVariant, StateError
from promptab.testing import force_variant

ROOT = Path(__file__).parents[1]
USERS = [f"u{number}" for number in range(20)]

USER_TESTS = """
import pytest
from promptab import PromptVariant

STORES = set()

async def two_versions(lab):
    await lab.versions.create_version("hello", "system", "Hello {{ name }}.")
    await lab.versions.create_version("hello", "system", "Hi {{ name }}!")
    await lab.experiments.create_experiment(
        "hello", "system", [PromptVariant("1.0.0", 50), PromptVariant("1.0.1", 50)]
    )

@pytest.mark.asyncio
async def test_lab_works(promptab_lab):
    assert await promptab_lab.versions.list_versions() == []
    await two_versions(promptab_lab)
    choice = await promptab_lab.choose("hello", "system", user_id="ada")
    await choice.record(success=True)
    STORES.add(promptab_lab.store.store_id)

@pytest.mark.asyncio
async def test_forced_variant_is_chosen(promptab_lab, promptab_force_variant):
    await two_versions(promptab_lab)
    await promptab_force_variant("hello", "1.0.1")
    for number in range(20):
        choice = await promptab_lab.choose("hello", "system", user_id=number)
        assert choice.render(name="Ada") == "Hi Ada!"
    STORES.add(promptab_lab.store.store_id)

def test_each_test_had_a_store_of_its_own():
    assert len(STORES) == 2
"""


async def make_experiment(lab: Lab, name: str = "hello", **options: object) -> None:
    for template in ("one", "two"):
        await lab.versions.create_version(name, "system", template)
    await lab.experiments.create_experiment(
        name,
        "system",
        [PromptVariant("1.0.0", 99), PromptVariant("1.0.1", 1)],
        **options,  # type: ignore[arg-type]
    )


async def served(lab: Lab) -> set[tuple[str | None, str]]:
    choices = [await lab.choose("hello", "system", user_id=user) for user in USERS]
    return {(choice.variant, choice.source) for choice in choices}


async def test_force_variant_serves_it_to_everybody(lab: Lab) -> None:
    await make_experiment(lab, traffic=0.01, where="plan == 'premium'")
    async with force_variant(lab, "hello", "1.0.1"):
        assert await served(lab) == {("1.0.1", "override")}
        assignment = await lab.experiments.assign("hello", "u1")
        assert (assignment.variant, assignment.reason) == ("1.0.1", "override")


async def test_force_variant_ends_with_its_block(lab: Lab) -> None:
    await make_experiment(lab)
    before = [await lab.experiments.get_variant_for_user("hello", user) for user in USERS]
    async with force_variant(lab, "hello", "1.0.1"):
        pass
    assert [await lab.experiments.get_variant_for_user("hello", user) for user in USERS] == before


async def test_force_variant_ends_when_the_block_fails(lab: Lab) -> None:
    await make_experiment(lab)
    with pytest.raises(ZeroDivisionError):
        async with force_variant(lab, "hello", "1.0.1"):
            raise ZeroDivisionError
    assert ("1.0.1", "override") not in await served(lab)


async def test_force_variant_gives_way_to_an_inner_one_and_comes_back(lab: Lab) -> None:
    await make_experiment(lab)
    async with force_variant(lab, "hello", "1.0.0"):
        async with force_variant(lab, "hello", "1.0.1"):
            assert await served(lab) == {("1.0.1", "override")}
        assert await served(lab) == {("1.0.0", "override")}


async def test_force_variant_leaves_a_unit_its_own_override(lab: Lab) -> None:
    await make_experiment(lab)
    await lab.experiments.set_override("hello", "tester", "1.0.0")
    async with force_variant(lab, "hello", "1.0.1"):
        assert await lab.experiments.get_variant_for_user("hello", "tester") == "1.0.0"
    experiment = await lab.experiments.get_experiment("hello")
    assert experiment is not None
    assert experiment.overrides == {"tester": "1.0.0"}


async def test_forced_units_are_left_out_of_the_comparison(lab: Lab) -> None:
    await make_experiment(lab)
    async with force_variant(lab, "hello", "1.0.1"):
        for user in USERS:
            choice = await lab.choose("hello", "system", user_id=user)
            await choice.record(success=True)
    comparison = await lab.compare("hello")
    assert sum(comparison.units.values()) == 0
    assert comparison.winner is None


async def test_force_variant_tolerates_that_the_experiment_is_deleted_inside(lab: Lab) -> None:
    await make_experiment(lab)
    async with force_variant(lab, "hello", "1.0.1"):
        await lab.experiments.stop("hello")
        assert await lab.experiments.delete_experiment("hello")
    assert await lab.experiments.get_experiment("hello") is None


async def test_force_variant_refuses_what_it_cannot_force(lab: Lab) -> None:
    with pytest.raises(NotFoundError, match="hello"):
        async with force_variant(lab, "hello", "1.0.1"):
            pass
    await make_experiment(lab, status="draft")
    with pytest.raises(StateError, match=r"is draft .* start it"):
        async with force_variant(lab, "hello", "1.0.1"):
            pass
    await lab.experiments.start("hello")
    with pytest.raises(InvalidInputError, match=r"one of the variants 1\.0\.0, 1\.0\.1"):
        async with force_variant(lab, "hello", "9.9.9"):
            pass


def installed_plugin(folder: Path) -> Path:
    """Write what an installer writes of the project's entry points for pytest; a folder for PYTHONPATH."""
    entry_points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    metadata = folder / "promptab_checkout-0.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: promptab-checkout\nVersion: 0.0\n")
    lines = [f"{name} = {target}" for name, target in entry_points.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines, ""]))
    return folder


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(installed_plugin(folder / "site")), str(ROOT)])
    # users who have not set a loop scope are told so by pytest-asyncio; that is between the two of them
    warnings = ["-W", "error", "-W", "ignore::pytest.PytestDeprecationWarning"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *warnings, *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "options",
    [
        ["-o", "asyncio_mode=strict"],
        ["-o", "asyncio_mode=auto"],
        [
            "-o",
            "asyncio_mode=strict",
            "-o",
            "asyncio_default_fixture_loop_scope=session",
            "-o",
            "asyncio_default_test_loop_scope=session",
        ],
    ],
    ids=["strict", "auto", "one-loop-for-all"],
)
def test_fixtures_work_in_a_users_tests(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "test_users_own.py").write_text(USER_TESTS)
    done = run_pytest(tmp_path, *options)
    assert "3 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_fixtures_work_without_pytest_asyncio(tmp_path: Path) -> None:
    (tmp_path / "pytest_asyncio.py").write_text("raise ImportError('not installed')\n")
    anyio_tests = USER_TESTS.replace("@pytest.mark.asyncio", "@pytest.mark.anyio")
    backend = '@pytest.fixture\ndef anyio_backend():\n    return "asyncio"\n'
    (tmp_path / "test_users_own.py").write_text(anyio_tests + backend)
    done = run_pytest(tmp_path, "-p", "no:asyncio")
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_plugin_loads_no_database_at_the_start_of_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text(
        "import sys\n"
        "def test_nothing_heavy_is_loaded():\n"
        "    assert 'promptab.testing' in sys.modules\n"
        "    heavy = {'sqlalchemy', 'alembic', 'numpy', 'scipy', 'typer', 'openai', 'anthropic'}\n"
        "    assert not heavy & set(sys.modules)\n"
    )
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
