"""Files in `prompts/` and versions in a store, kept in step: plan first, then push or pull."""

from promptab.sync.applying import plan_sync, pull, push
from promptab.sync.items import SyncAction, SyncItem, SyncOutcome, SyncPlan, SyncReport, ThreeWayDiff
from promptab.sync.offline import check_files

__all__ = [
    "SyncAction",
    "SyncItem",
    "SyncOutcome",
    "SyncPlan",
    "SyncReport",
    "ThreeWayDiff",
    "check_files",
    "plan_sync",
    "pull",
    "push",
]
