"""The engine in a process of its own, set as that of a run, so that its settings do not reach the peers.

On a CPU a run keeps the memory that it frees (runtime/allocator.py). That cannot be taken back, and would speed up
whatever else trains in the same process.
"""

import multiprocessing
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from engine_loop import EngineLoop, loop_member

from tl_experiments import build


@dataclass(frozen=True)
class Ready:
    """What was built: precision and layout, and the seconds that decoding took before the first step."""

    compute: str
    decoding_seconds: float


class EngineProcess:
    """`strategy=finetune augmentation=light runtime=auto`: trains when it is asked to, and waits in between.

    Attributes:
        ready: what the process has built.
    """

    def __init__(self, subset: Path, backbone: str, *, batch_size: int) -> None:
        """Start the process and wait until it could make its first step."""
        context = multiprocessing.get_context("spawn")  # a fork would inherit threads, and on a GPU could not go on
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, subset, backbone, batch_size))
        self._process.start()
        theirs.close()  # or the pipe would not end when the process does
        self.ready: Ready = self._answer()

    def __call__(self, warmup: int, steps: int) -> float:
        """Images/s of training steps after a warmup, as the process measures them."""
        self._connection.send((warmup, steps))
        return self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.join()

    def _answer(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            raise SystemExit("error: the process that trains ours has ended; its last words are above") from None


def _serve(connection: Connection, subset: Path, backbone: str, batch_size: int) -> None:
    """Train round by round until nobody asks any more."""
    member = loop_member(subset, backbone, "strategy=finetune", "augmentation=light", batch_size=batch_size)
    with build.build_place(member):
        loop = EngineLoop(member)
        connection.send(Ready(str(loop.compute), loop.decoding_seconds))
        for warmup, steps in _requests(connection):
            connection.send(loop(warmup, steps))


def _requests(connection: Connection) -> Iterator[tuple[int, int]]:
    with suppress(EOFError):  # the other end is closed
        while True:
            yield connection.recv()
