"""A strategy that goes wrong by design, so that tests see what a sweep makes of it: the seed chooses the fault."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from tl_experiments.data.batches import Batch, Batches
from tl_experiments.runtime.ranks import ALONE, Ranks
from tl_experiments.strategies.base import Strategy, Workload
from tl_experiments.strategies.feature import Feature
from tl_experiments.strategies.materials import Materials, SplitBatches

RAISES, EXITS, IS_KILLED, CRASHES, HANGS = 101, 102, 103, 104, 105
HELD_EPOCH = 5
HOLD = "hold"


class FaultError(Exception):
    """An error that can be pickled, but not be made again from what was pickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


@dataclass(frozen=True)
class Faulty(Strategy):
    """Feature extraction, but for the seeds above."""

    batchnorm: str
    views: int | None

    trains_backbone: ClassVar[bool] = False
    learns_from_features: ClassVar[bool] = True

    def prepare(self, materials: Materials) -> Workload:
        [seed] = materials.seeds
        if seed == RAISES:
            raise FaultError("by", "design")
        if seed == EXITS:
            sys.exit(3)
        if seed == IS_KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        if seed == CRASHES:
            os.kill(os.getpid(), signal.SIGSEGV)
        if seed == HANGS:
            time.sleep(600)
        return Feature(batchnorm="eval", views=None).prepare(materials)


@dataclass(frozen=True)
class Held(Feature):
    """Feature extraction that begins no epoch from the fifth on while a file `hold` is where the program was started.

    So tests strike a job in its middle, however fast it is. One seed raises, as above.
    """

    def prepare(self, materials: Materials) -> Workload:
        if RAISES in materials.seeds:
            raise FaultError("by", "design")
        workload = super().prepare(materials)
        [phase] = workload.phases

        def open_held() -> SplitBatches:
            batches = phase.open()
            return replace(batches, train=HeldBatches(batches.train))

        return replace(workload, phases=(replace(phase, open=open_held),))


@dataclass(frozen=True)
class HeldBatches:
    """Other batches, from which a file keeps the later epochs."""

    batches: Batches

    @property
    def num_samples(self) -> int:
        return self.batches.num_samples

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, *, skip: int = 0, ranks: Ranks = ALONE) -> Iterator[Batch]:
        while epoch >= HELD_EPOCH and Path(HOLD).exists():
            time.sleep(0.05)
        return self.batches.epoch(epoch, skip=skip, ranks=ranks)
