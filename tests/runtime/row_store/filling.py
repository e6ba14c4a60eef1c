"""Fillings of a store whose rows are known beforehand, and a look at what it left."""

import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tl_experiments.runtime import shard_writer
from tl_experiments.runtime.cache_entries import verify
from tl_experiments.runtime.cache_pruning import prune
from tl_experiments.runtime.row_store import RowStore
from tl_experiments.runtime.share import WHOLE, Share

FIELDS = {"backbone": "b" * 64, "image_size": 32}
FEATURE_DIM = 5


def own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a cache in a folder, with shards of four rows."""
    monkeypatch.setenv("TL_CACHE_DIR", str(folder / "cache"))
    monkeypatch.delenv("TL_CACHE_LIMIT_GB", raising=False)
    monkeypatch.setattr(shard_writer, "SHARD_ROWS", 4)
    return folder / "cache"


def digest(number: int) -> str:
    return f"{number:064x}"


def row(number: int) -> torch.Tensor:
    return torch.arange(FEATURE_DIM) + 10.0 * number


class Job:
    """One filling of a store for images 0, 1, ...: what it gave, what it computed, and what it said."""

    def __init__(
        self, numbers: range | list[int], fields: dict | None = None, chunk: int = 3, share: Share = WHOLE
    ) -> None:
        self.numbers, self.chunk = list(numbers), chunk
        self.computed: list[int] = []
        self.told: list[str] = []
        self.rows = torch.full((len(self.numbers), FEATURE_DIM), torch.nan)
        self.store = RowStore(
            kind="features",
            fields=FIELDS if fields is None else fields,
            row_shape=(FEATURE_DIM,),
            dtype=torch.float32,
            notice=self.told.append,
            share=share,
        )

    def compute(self, positions: np.ndarray) -> Iterator[torch.Tensor]:
        assert positions.dtype == np.int64
        assert (np.diff(positions) > 0).all()
        for start in range(0, len(positions), self.chunk):
            numbers = [self.numbers[position] for position in positions[start : start + self.chunk]]
            self.computed += numbers
            yield torch.stack([row(number) for number in numbers])

    def fill(self) -> "Job":
        self.store.fill(self.rows, [digest(number) for number in self.numbers], self.compute)
        assert torch.equal(self.rows, torch.stack([row(number) for number in self.numbers]))
        return self


def files(suffix: str) -> list[Path]:
    folder = Job([0]).store.folder
    return sorted(path for path in folder.glob(f"*{suffix}") if path.name != "key.json")


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def settled(root: Path, numbers: range = range(10)) -> bool:
    """Whether everything is stored, sound and without leftovers."""
    return not Job(numbers).fill().computed and not list(verify(root)) and not prune(root, limit=1e9).freed


def in_child(work: Callable[[], None]) -> int:
    """Fork a process that does the work and ends with 0; its id."""
    pid = os.fork()
    if pid == 0:
        try:
            torch.set_num_threads(1)
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return pid


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
