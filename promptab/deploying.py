"""What is live in each environment: promotion, rollback and the history of both."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Final, Literal, cast

from promptab.case_keeping import CaseKeeping
from promptab.checks import check_json_object, check_label, check_text, check_time, known_id
from promptab.content import check_prompt
from promptab.errors import ConflictError, InvalidInputError, StateError
from promptab.lifecycle import deployed_at
from promptab.models import ENVIRONMENTS, Deployment, Environment, PromptVersion
from promptab.pointing import Occasion, existing_version, point, roll_back, rollback_target
from promptab.stores.base import Transaction


class Unset(Enum):
    """The absence of an argument for which None has a meaning."""

    UNSET = 0


UNSET: Final = Unset.UNSET
Expected = str | None | Literal[Unset.UNSET]


class Deploying(CaseKeeping):
    """The environment half of `VersionManager`."""

    async def promote(
        self,
        version_id: str,
        environment: str = "production",
        *,
        reason: str = "",
        expected: Expected = UNSET,
        actor: str | None = None,
        evidence: Mapping[str, Any] | None = None,
        gate: bool = False,
    ) -> Deployment:
        """Make a version live in an environment, and append to its history.

        The move is conditional on what is live: on `expected` (a version_id, a version number, or None for
        nothing), else on what was live when this call began; `ConflictError` where that has changed.
        Promoting what is live already changes nothing and returns the entry that made it live. What was live
        before becomes `active`.

        With `gate=True` the results that are kept of the prompt's cases (`Lab.test`, `promptab test`) decide: a case
        that passed on what is live and fails on this version refuses the move, and so does one that was not tried.

        Raises `NotFoundError`, `StateError` for an archived version, and `GateError`, which names the cases.
        """
        where = check_environment(environment)
        text, who = check_text("reason", reason), _check_actor(actor)
        wanted = check_expected(expected)
        proof = None if evidence is None else check_json_object("evidence", evidence)
        store = await self._store()

        async def look(tx: Transaction) -> str | None:
            version = await existing_version(tx, version_id)
            return await tx.deployments.pointer(version.prompt_type, version.name, where)

        seen = await store.read(look)

        async def work(tx: Transaction) -> Deployment:
            version = await existing_version(tx, version_id)
            live_id = await tx.deployments.pointer(version.prompt_type, version.name, where)
            live = None if live_id is None else await existing_version(tx, live_id)
            if live_id == version.version_id:
                history = await tx.deployments.history(version.prompt_type, version.name, where)
                return next(move for move in reversed(history) if move.action != "keep")
            if not _is_expected(live, seen if wanted is UNSET else wanted):
                raise ConflictError(
                    f"{where} of {version.prompt_type}/{version.name} is now {_shown(live)}: somebody else moved it; "
                    f"look at its deployments and promote {version.version} again if it is still right"
                )
            shown = proof
            if gate:
                shown = {**(proof or {}), "gate": await self._pass_gate(tx, version, live)}
            return await point(tx, version, where, Occasion(self._clock(), who, text, shown))

        return await store.write(work)

    async def rollback(
        self,
        name: str,
        prompt_type: str,
        environment: str = "production",
        *,
        reason: str = "",
        expected: Expected = UNSET,
        actor: str | None = None,
        evidence: Mapping[str, Any] | None = None,
    ) -> Deployment | None:
        """Take an environment back to what was live before, and deprecate what is live now.

        Repeated, it walks back through the history (C, then B, then A), never to a version that a rollback
        left unless that was promoted again; versions that are gone or archived are passed over. With
        `expected` (a version_id or a number) it does nothing and returns None when something else is live, so
        that a script is safe to run twice. Running experiments that serve the version left are paused, so
        that nobody gets it from there.

        Raises `StateError` where there is nothing to go back to, and `ConflictError` where somebody else moved the
        environment after this call began.
        """
        kind, name = check_prompt(name, prompt_type)
        where = check_environment(environment)
        text, who = check_text("reason", reason), _check_actor(actor)
        proof = None if evidence is None else check_json_object("evidence", evidence)
        wanted = check_expected(expected)
        store = await self._store()

        async def look(tx: Transaction) -> str | None:
            return await tx.deployments.pointer(kind, name, where)

        seen = await store.read(look)

        async def work(tx: Transaction) -> Deployment | None:
            live_id = await tx.deployments.pointer(kind, name, where)
            left = None if live_id is None else await existing_version(tx, live_id)
            if wanted is not UNSET and not _is_expected(left, wanted):
                return None
            if wanted is UNSET and live_id != seen:
                raise ConflictError(
                    f"{where} of {kind}/{name} is now {_shown(left)}: somebody else moved it; "
                    "look at its deployments and roll back again if it is still wrong"
                )
            target = await rollback_target(tx, kind, name, where)
            if target is None:
                raise StateError(
                    f"{where} of {kind}/{name} is {_shown(left)} and nothing that was live before can be gone back to; "
                    "promote the version that should be live"
                )
            return await roll_back(tx, target, left, where, Occasion(self._clock(), who, text, proof))

        return await store.write(work)

    async def deployments(
        self, name: str, prompt_type: str, environment: str | None = "production"
    ) -> list[Deployment]:
        """Return the history of an environment in the order of its moves; of all environments for None."""
        kind, name = check_prompt(name, prompt_type)
        where = None if environment is None else check_environment(environment)

        async def work(tx: Transaction) -> list[Deployment]:
            return await tx.deployments.history(kind, name, where)

        return await (await self._store()).read(work)

    async def deployed_at(
        self, name: str, prompt_type: str, time: datetime, environment: str = "production"
    ) -> PromptVersion | None:
        """Return the version that was live at that time; None where nothing was, or where it was deleted
        since.
        """
        when = check_time("time", time)
        move = deployed_at(await self.deployments(name, prompt_type, environment), when)
        if move is None or move.version_id is None:
            return None
        version_id = move.version_id

        async def work(tx: Transaction) -> PromptVersion | None:
            return await tx.versions.by_id(version_id)

        return await (await self._store()).read(work)


def check_environment(environment: str) -> Environment:
    if environment not in ENVIRONMENTS:
        raise InvalidInputError("environment", environment, f"one of {', '.join(ENVIRONMENTS)}")
    return cast("Environment", environment)


def check_expected(expected: object) -> Expected:
    """Return what the caller saw: UNSET, None for nothing, or an id (in its canonical form) or a number."""
    if expected is None or isinstance(expected, Unset):
        return expected
    known = known_id(expected)
    if known is None and not isinstance(expected, str):
        raise InvalidInputError("expected", expected, "a version_id, a version number, or None for nothing")
    return known or str(expected)


def _check_actor(actor: str | None) -> str | None:
    return None if actor is None else check_label("actor", actor)


def _is_expected(live: PromptVersion | None, expected: str | None) -> bool:
    if live is None or expected is None:
        return live is None and expected is None
    return expected in {live.version_id, live.version}


def _shown(version: PromptVersion | None) -> str:
    return "empty" if version is None else version.version
