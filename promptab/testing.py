"""Fixtures for the tests of code that uses promptab: a lab in memory, and a variant forced on everybody.

pytest loads this module as a plugin at its start, so nothing here imports a database before a fixture is used.

    async def test_reply_of_the_candidate(promptab_lab, promptab_force_variant):
        await set_up_prompts(promptab_lab)
        await promptab_force_variant("support_reply", "1.1.0")
        assert "next step" in await answer(promptab_lab, user_id="u1")
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

import promptab
from promptab.errors import NotFoundError, StateError
from promptab.models import EVERY_UNIT, ExperimentStatus

if TYPE_CHECKING:
    from promptab.lab import Lab

try:
    # in its strict mode pytest-asyncio runs only the async fixtures that are declared by its own decorator
    from pytest_asyncio import fixture as async_fixture
except ImportError:
    # for other plugins that run async tests, such as anyio's
    async_fixture = pytest.fixture  # type: ignore[assignment]

ForceVariant = Callable[[str, str], Awaitable[None]]
"""Takes an experiment (id or name) and the key of one of its variants."""


@asynccontextmanager
async def force_variant(lab: Lab, experiment: str, variant: str) -> AsyncIterator[None]:
    """Give a variant to every unit inside the block, whatever the weights, enrolment and targeting say.

    It is an override in the store, so other labs on the same store follow too. A unit with an override of its
    own keeps that one; where no unit is given there is nothing to assign. Units served so are left out of
    comparisons.

    Raises `NotFoundError`, `InvalidInputError` for an unknown variant, and `StateError` where the experiment
    is not running.
    """
    found = await lab.experiments.get_experiment(experiment)
    if found is None:
        raise NotFoundError("experiment", experiment, "create it before forcing one of its variants")
    if found.status != ExperimentStatus.RUNNING:
        raise StateError(
            f"experiment {found.name!r} is {found.status} and serves nobody; start it before forcing a variant"
        )
    await lab.experiments.set_override(found.experiment_id, EVERY_UNIT, variant)
    try:
        yield
    finally:
        with suppress(NotFoundError):  # deleted inside the block
            await lab.experiments.set_override(
                found.experiment_id, EVERY_UNIT, found.overrides.get(EVERY_UNIT)
            )


@async_fixture
async def promptab_lab() -> AsyncIterator[Lab]:
    """An open lab on a new store in memory, closed after the test."""
    async with promptab.open("sqlite:///:memory:") as lab:
        yield lab


@async_fixture
async def promptab_force_variant(promptab_lab: Lab) -> AsyncIterator[ForceVariant]:
    """Force variants of experiments in `promptab_lab` until the test ends; see `force_variant`."""
    async with AsyncExitStack() as forced:

        async def force(experiment: str, variant: str) -> None:
            await forced.enter_async_context(force_variant(promptab_lab, experiment, variant))

        yield force
