"""Where a process computes, and with which others it trains one run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from tl_experiments.runtime.process import choose_device, process_context
from tl_experiments.runtime.ranks import ALONE, Ranks, process_group
from tl_experiments.runtime.torchrun import Launch, current_launch


@dataclass(frozen=True)
class Place:
    """A device of this process, and its rank among those that train the same run."""

    device: torch.device
    ranks: Ranks


@contextmanager
def open_place(*, device: str, threads: int | None, deterministic: bool, rank_timeout: float) -> Iterator[Place]:
    """Yield where a run is trained: a process of its own, or under torchrun one of several, which can talk then.

    Args:
        device: auto, cpu, cuda or cuda:N; of several processes each has the GPU of its number on its machine.
        threads, deterministic: as of `process_context`.
        rank_timeout: seconds after which another process that does not answer is given up, and this one fails.

    Raises:
        SettingError: the device is not there.
    """
    launch = current_launch()
    if launch is None:
        with process_context(device=device, threads=threads, deterministic=deterministic) as chosen:
            yield Place(chosen, ALONE)
        return
    ranks, name = Ranks(launch.rank, launch.count), _own_device(device, launch)
    with (
        process_context(device=name, threads=threads, deterministic=deterministic) as chosen,
        process_group(ranks, store=launch.store_of_round, device=chosen, timeout_seconds=rank_timeout),
    ):
        yield Place(chosen, ranks)


def _own_device(name: str, launch: Launch) -> str:
    if launch.count == 1 or choose_device(name).type != "cuda":
        return name
    return f"cuda:{launch.local_rank}"
