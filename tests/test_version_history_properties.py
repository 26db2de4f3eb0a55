"""Whatever is done to the versions of a prompt: one production version, and a history that explains it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from itertools import pairwise
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

import promptab
from promptab import Lab, PromptVersion, StateError, VersionStatus
from promptab.lifecycle import deployed_at, rollback_candidates
from tests.clock import SettableClock

T = TypeVar("T")

ENVIRONMENTS = ["production", "staging"]


class VersionHistory(RuleBasedStateMachine):
    """A model of what is live beside a lab in memory; refused changes leave the model as it was."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = SettableClock()
        self.lab: Lab = self.run(self._open())
        self.live: dict[str, str | None] = dict.fromkeys(ENVIRONMENTS)
        self.left: dict[str, set[str]] = {environment: set() for environment in ENVIRONMENTS}
        """Versions that a rollback or a withdrawal left, and that were not promoted since."""
        self.gone: set[str] = set()

    async def _open(self) -> Lab:
        return await promptab.open("sqlite:///:memory:", clock=self.clock)

    def run(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self.runner.run(awaited())

    def teardown(self) -> None:
        self.run(self.lab.close())
        self.runner.close()

    def stored(self) -> dict[str, PromptVersion]:
        return {
            version.version_id: version
            for version in self.run(self.lab.versions.list_versions("p", "system"))
        }

    def promoted(self, version_id: str, environment: str) -> None:
        self.live[environment] = version_id
        self.left[environment].discard(version_id)

    def withdrawn(self, version_id: str, environment: str) -> None:
        if self.live[environment] == version_id:
            self.live[environment] = None
            self.left[environment].add(version_id)

    @rule(
        target=ids,
        status=st.sampled_from(VersionStatus),
        tags=st.sets(st.sampled_from([*ENVIRONMENTS, "eu"])),
    )
    def create(self, status: VersionStatus, tags: set[str]) -> str:
        self.clock.advance(seconds=1)
        environments = {tag for tag in tags if tag in ENVIRONMENTS}
        if status == VersionStatus.PRODUCTION:
            environments.add("production")
        if status == VersionStatus.ARCHIVED and environments:
            status = VersionStatus.ACTIVE
        created = self.run(
            self.lab.versions.create_version("p", "system", "Text.", status=status, tags=sorted(tags))
        )
        for environment in environments:
            self.promoted(created.version_id, environment)
        return created.version_id

    @rule(version_id=ids, environment=st.sampled_from(ENVIRONMENTS), by_tag=st.booleans())
    def promote(self, version_id: str, environment: str, *, by_tag: bool) -> None:
        self.clock.advance(seconds=1)
        known = self.stored().get(version_id)
        refused = known is None or known.status == VersionStatus.ARCHIVED
        versions = self.lab.versions
        try:
            if by_tag:
                self.run(versions.tag_version(version_id, environment))
            else:
                self.run(versions.promote(version_id, environment, reason="a rule"))
        except (StateError, promptab.NotFoundError):
            assert refused
        else:
            assert not refused
            self.promoted(version_id, environment)

    @rule(version_id=ids, status=st.sampled_from(VersionStatus))
    def set_status(self, version_id: str, status: VersionStatus) -> None:
        self.clock.advance(seconds=1)
        try:
            self.run(self.lab.versions.update_status(version_id, status))
        except (StateError, promptab.NotFoundError):
            return
        if status == VersionStatus.PRODUCTION:
            self.promoted(version_id, "production")
        else:
            self.withdrawn(version_id, "production")

    @rule(version_id=ids, tag=st.sampled_from([*ENVIRONMENTS, "eu"]))
    def untag(self, version_id: str, tag: str) -> None:
        self.clock.advance(seconds=1)
        if version_id in self.gone:
            return
        self.run(self.lab.versions.untag_version(version_id, tag))
        if tag in ENVIRONMENTS:
            self.withdrawn(version_id, tag)

    @precondition(lambda self: any(self.live.values()))
    @rule(environment=st.sampled_from(ENVIRONMENTS), expected=st.booleans())
    def rollback(self, environment: str, *, expected: bool) -> None:
        self.clock.advance(seconds=1)
        before = self.live[environment]
        try:
            if expected:
                move = self.run(self.lab.versions.rollback("p", "system", environment, expected=before))
            else:
                move = self.run(self.lab.versions.rollback("p", "system", environment))
        except StateError:
            return
        assert move is not None
        assert move.version_id is not None
        assert move.version_id != before
        assert move.version_id not in self.left[environment] | self.gone
        if before is not None:
            self.left[environment].add(before)
        self.live[environment] = move.version_id

    @rule(version_id=ids)
    def delete(self, version_id: str) -> None:
        try:
            deleted = self.run(self.lab.versions.delete_version(version_id))
        except StateError:
            assert version_id in self.live.values()
            return
        assert deleted is (version_id not in self.gone)
        self.gone.add(version_id)

    @invariant()
    def at_most_one_version_is_live_and_status_and_tag_agree(self) -> None:
        stored = self.stored().values()
        for environment in ENVIRONMENTS:
            bearing = [version.version_id for version in stored if environment in version.tags]
            assert bearing == [live for live in [self.live[environment]] if live is not None]
        in_production = [v.version_id for v in stored if v.status == VersionStatus.PRODUCTION]
        assert in_production == [v.version_id for v in stored if "production" in v.tags]
        assert not any(v.tags and v.status == VersionStatus.ARCHIVED for v in stored if set(v.tags) != {"eu"})

    @invariant()
    def the_history_replays_to_what_is_live(self) -> None:
        for environment in ENVIRONMENTS:
            history = self.run(self.lab.versions.deployments("p", "system", environment))
            for earlier, later in pairwise(history):
                assert later.previous_version_id == earlier.version_id
                assert later.sequence > earlier.sequence
            if history:
                assert history[0].previous_version_id is None
            replayed = deployed_at(history, self.clock.now)
            assert (None if replayed is None else replayed.version_id) == self.live[environment]
            candidates = {former.version_id for former in rollback_candidates(history)}
            assert not candidates & {*self.left[environment], self.live[environment]}


VersionHistory.TestCase.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
TestVersionHistory = VersionHistory.TestCase
