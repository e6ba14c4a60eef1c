"""A strategy that goes wrong by design, so that tests see what a sweep makes of it: the seed chooses the fault."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import ClassVar

from tl_experiments.strategies.base import Strategy, Workload
from tl_experiments.strategies.feature import Feature
from tl_experiments.strategies.materials import Materials

RAISES, EXITS, IS_KILLED, CRASHES, HANGS = 101, 102, 103, 104, 105


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
