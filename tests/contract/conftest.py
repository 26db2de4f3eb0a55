"""The contract holds for every store: its tests run once on each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import url_of


@pytest.fixture(params=["file", "memory", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new store; a test runs once for every kind and never asks which one it has."""
    return url_of(request, tmp_path)
