"""A script that forgets to close what it opened: `never_closing.py managers | lab | both`.

The store is the one of PROMPTAB_URL.
"""

from __future__ import annotations

import asyncio
import sys

import promptab
from promptab import ABTestManager, MetricsCollector, PromptVariant, VersionManager

USERS = 50


async def main(how: str) -> None:
    # what takes long is the first import of a database driver, which is not what this script is about
    asyncio.get_running_loop().slow_callback_duration = 60.0
    if how == "managers":
        versions, experiments, metrics = VersionManager(), ABTestManager(), MetricsCollector()
    else:
        lab = await promptab.open()
        versions, experiments, metrics = lab.versions, lab.experiments, lab.metrics
    if how == "both":
        metrics = MetricsCollector()
    first = await versions.create_version("tone", "system", "Be kind.")
    second = await versions.create_version("tone", "system", "Be kinder.")
    await experiments.create_experiment(
        "tone", "system", [PromptVariant(first.version), PromptVariant(second.version)]
    )
    await metrics.record_event(first.version_id, success=True)
    for user in range(USERS):
        await experiments.assign("tone", user)
    print("done")


asyncio.run(main(sys.argv[1]))
