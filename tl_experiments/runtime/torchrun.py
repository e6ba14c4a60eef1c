"""What torchrun tells its processes, and what they tell each other before they train and when they are done.

The first rank alone composes the configuration and owns the folder; the others are given what they are to train.
Nothing heavy is imported before it is needed. https://docs.pytorch.org/docs/stable/elastic/run.html
"""

import json
import os
import platform
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from tl_experiments.runtime.cache_folder import cache_folder
from tl_experiments.runtime.files import publish_text

RUN_ID = "TORCHELASTIC_RUN_ID"
LEADER = "leader"
DOOR_SECONDS = 1800  # that the first process may take to say what is to be done
END_SECONDS = 20  # that the others wait for it where all stop; torchrun kills after 30
ASK_SECONDS = 0.1


@dataclass
class Launch:
    """One attempt of torchrun's.

    Attributes:
        rank: of this process, from 0; the first one owns the run.
        count: of processes, on all machines.
        local_rank: of this process on its machine, from 0; the number of its GPU.
        run_id: of the launch, the same for all its attempts.
        attempt: from 0: how often torchrun has begun again after a process of this machine died; others may count
            otherwise.
        typed: the command line, by which an attempt knows the note of an earlier one.
        round: of the processes that have found each other, drawn by the first; torchrun's store may outlive an attempt,
            with what processes that are gone have left in it.
    """

    rank: int
    count: int
    local_rank: int
    run_id: str
    attempt: int
    typed: tuple[str, ...] = ()
    round: str = field(default_factory=lambda: uuid.uuid4().hex)
    has_given: bool = False  # a task
    error: str = ""  # that this process has told

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @cached_property
    def store(self) -> Any:
        """Where processes leave words for each other; made when it is first asked."""
        import torch.distributed as dist  # noqa: PLC0415 - a config error must not wait for torch

        store, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=DOOR_SECONDS)))
        return store

    @property
    def store_of_round(self) -> Any:
        """The same, for the processes that have found each other alone."""
        import torch.distributed as dist  # noqa: PLC0415 - as above

        return dist.PrefixStore(self.round, self.store)

    def give_task(self, task: Any) -> None:
        """Tell each other process, once it is there, what to train, as plain values; None is nothing."""
        self.has_given = True
        if self.count > 1:
            self.store.set(LEADER, self.round)
        for rank in range(1, self.count):
            asked = self.store.get(f"{self.round}/asks/{rank}").decode()
            self.store.set(f"{self.round}/answer/{asked}", json.dumps(task))

    def task(self) -> Any:
        """Wait for what the first process gives; its round is that of this process then."""
        own, until = uuid.uuid4().hex, time.monotonic() + DOOR_SECONDS
        self.round = ""
        while time.monotonic() < until:
            leader = self.store.get(LEADER).decode()
            if leader != self.round:  # or another, where this one was of an attempt that is over
                self.round = leader
                self.store.set(f"{leader}/asks/{self.rank}", own)
            answer = f"{leader}/answer/{own}"
            if self.store.check([answer]):
                return json.loads(self.store.get(answer))
            time.sleep(ASK_SECONDS)
        raise TimeoutError(f"the first process has said nothing for {DOOR_SECONDS} s")

    def end(self) -> None:
        """Say that the first process has come to its end, and what it told of an error."""
        with suppress(RuntimeError):
            self.store.set(f"{self.round}/ended", self.error)

    def error_of_first(self, *, seconds: float) -> str | None:
        """Return the error by which the first process has ended, waiting for it; None where it tells none."""
        with suppress(RuntimeError):
            self.store.wait([f"{self.round}/ended"], timedelta(seconds=seconds))
            return self.store.get(f"{self.round}/ended").decode() or None
        return None

    def wait_for_first(self) -> None:
        """Wait until the first process has come to its end: torchrun ends all where one ends that has not finished."""
        self.error_of_first(seconds=END_SECONDS)

    @property
    def _note(self) -> Path:
        return cache_folder() / "torchrun" / f"{self.run_id}.json"

    @property
    def _command(self) -> dict[str, Any]:
        return {"arguments": list(self.typed), "cwd": str(Path.cwd())}

    def remember(self, folder: Path) -> None:
        """Keep, for a later attempt of this very launch, which folder the run has."""
        self._note.parent.mkdir(parents=True, exist_ok=True)
        publish_text(self._note, json.dumps({"folder": str(folder), "agent": _agent(), **self._command}))

    def remembered(self) -> Path | None:
        """Return the folder that an earlier attempt of this launch has; None where there was none."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not self._command.items() <= note.items():
            return None
        # Machines that join or leave make torchrun begin again without counting it.
        return Path(note["folder"]) if self.attempt > 0 or note["agent"] == _agent() else None

    def forget(self) -> None:
        """The run has finished."""
        self._note.unlink(missing_ok=True)


def _agent() -> list[Any]:
    """Name the process of torchrun on this machine; a container's has the same number each time."""
    began = ""
    with suppress(OSError, IndexError):
        began = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[19]
    return [platform.node(), os.getppid(), began]


@cache
def current_launch() -> Launch | None:
    """Return what torchrun says of this process; None where it was not started by torchrun."""
    if RUN_ID not in os.environ:
        return None
    number = {key: int(os.environ[key]) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT")}
    return Launch(
        rank=number["RANK"],
        count=number["WORLD_SIZE"],
        local_rank=number["LOCAL_RANK"],
        run_id=os.environ[RUN_ID],
        attempt=number["TORCHELASTIC_RESTART_COUNT"],
        typed=tuple(sys.argv[1:]),
    )
