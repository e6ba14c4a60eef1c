"""A cache of its own for every test of the store."""

from pathlib import Path

import pytest

from tests.runtime.row_store.filling import own_cache


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test."""
    return own_cache(tmp_path, monkeypatch)
