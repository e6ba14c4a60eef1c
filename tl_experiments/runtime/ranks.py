"""The processes that train one run together, by their ranks; a process that is alone is one of one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist

from tl_experiments.runtime.errors import RankLost, RunFailed
from tl_experiments.runtime.share import Share

Value = TypeVar("Value")
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ranks:
    """One of `count` processes; what it tells the others is told by all of them, in the same order.

    Attributes:
        rank: from 0; the first one owns the run's folder and its record.
        count: of processes, on all machines.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        return self.count == 1

    @property
    def told(self) -> str:
        """As people are told of the others; nothing where there are none."""
        return "" if self.is_alone else f", {self.count} processes"

    @property
    def share(self) -> Share:
        """What this process fills of a cache that all fill together."""
        return Share(self.rank, self.count)

    def places(self, start: int, end: int) -> np.ndarray:
        """Return which of the places `start`, ..., `end - 1` of an epoch are this process's own, int64."""
        return np.arange(start + (self.rank - start) % self.count, end, self.count)

    def add_up(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by its sum over all processes."""
        if not self.is_alone:
            dist.all_reduce(tensor)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return for each flag whether it is set in any process."""
        if self.is_alone:
            return flags
        raised = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(raised, op=dist.ReduceOp.MAX)
        return tuple(map(bool, raised.tolist()))

    def from_first(self, value: Value) -> Value:
        """Return what the first process has."""
        if self.is_alone:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=_CPU)
        return values[0]

    def from_all(self, value: Value) -> list[Value]:
        """Return what every process has, by rank."""
        if self.is_alone:
            return [value]
        values: list[Value | None] = [None] * self.count
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # all are there now

    def gather(self, own: torch.Tensor, *, count: int) -> torch.Tensor:
        """Return the rows of all places, (count, ...), from the own ones of every process, in the order of `places`.

        Args:
            own: (n, ...), n being how many of the places 0, ..., `count - 1` are this process's.
            count: of places.
        """
        if self.is_alone:
            return own
        rows = own.new_empty(count, *own.shape[1:])
        for rank in range(self.count):  # one after the other, since all at once would take the memory twice
            of_rank = rows[rank :: self.count]
            part = own.contiguous() if rank == self.rank else torch.empty_like(of_rank)
            if len(of_rank):
                dist.broadcast(part, src=rank)
                of_rank.copy_(part)
        return rows

    def require_same(self, value: str, *, what: str) -> None:
        """See that all processes have the same.

        Raises:
            RunFailed: some do not.
        """
        values = self.from_all(value)
        if others := [rank for rank, other in enumerate(values) if other != values[0]]:
            raise RunFailed(
                f"{what} of rank {', '.join(map(str, others))} differ from those of rank 0; "
                "expected the same data, weights and libraries on all machines"
            )


ALONE = Ranks()


@contextmanager
def process_group(ranks: Ranks, *, store: dist.Store, device: torch.device, timeout_seconds: float) -> Iterator[None]:
    """Let the processes talk: over NCCL from GPU to GPU, over gloo else.

    Args:
        ranks: who they are.
        store: where they find each other.
        device: of this process.
        timeout_seconds: after which a process that does not answer is given up, and this one fails.
    """
    if ranks.is_alone:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where NCCL looks
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore("process_group", store),
        rank=ranks.rank,
        world_size=ranks.count,
        timeout=timedelta(seconds=timeout_seconds),
    )
    try:
        yield
    except RuntimeError as error:
        if "gloo" not in str(error) and not isinstance(error, dist.DistError):
            raise
        raise RankLost(f"another process of this run does not answer: {str(error).splitlines()[0]}") from error
    finally:
        dist.destroy_process_group()
