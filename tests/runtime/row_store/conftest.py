"""A cache of its own for every test of the store."""

from pathlib import Path

import pytest

from tl_experiments.runtime import shard_writer


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test, with shards of four rows."""
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TL_CACHE_LIMIT_GB", raising=False)
    monkeypatch.setattr(shard_writer, "SHARD_ROWS", 4)
    return tmp_path / "cache"
