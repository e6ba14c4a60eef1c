"""What torchrun tells its processes, and what they tell each other before they train and when they are done.

Nothing heavy is imported before it is needed.

The first rank alone composes the configuration and owns the folder; the others are given what they are to train.
https://docs.pytorch.org/docs/stable/elastic/run.html
"""

import json
import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from tl_experiments.runtime.cache_folder import cache_folder
from tl_experiments.runtime.files import publish_text

RUN_ID = "TORCHELASTIC_RUN_ID"
TASK, ENDED = "task", "ended"  # keys of the store
DOOR_MINUTES = 30  # that the first process may take to say what is to be done
END_SECONDS = 20  # that the others wait for it where all stop; torchrun kills after 30


@dataclass(frozen=True)
class Launch:
    """One attempt of torchrun's.

    Attributes:
        rank: of this process, from 0; the first one owns the run.
        count: of processes, on all machines.
        local_rank: of this process on its machine, from 0; the number of its GPU.
        run_id: of the launch, the same for all its attempts.
        attempt: from 0: how often torchrun has begun again after a process died.
    """

    rank: int
    count: int
    local_rank: int
    run_id: str
    attempt: int

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @cached_property
    def store(self) -> Any:
        """Where the processes of this attempt leave words for each other; made when it is first asked."""
        import torch.distributed as dist  # noqa: PLC0415 - a config error must not wait for torch

        store, _, _ = next(dist.rendezvous("env://", timeout=timedelta(minutes=DOOR_MINUTES)))
        # torchrun may keep the store from attempt to attempt, with what processes that are gone have left in it.
        return dist.PrefixStore(f"attempt-{self.attempt}-of-{self.count}", store)

    def give_task(self, task: Any) -> None:
        """Tell the other processes what to train, as plain values; None is nothing. What was told first counts."""
        self.store.compare_set(TASK, "", json.dumps(task))

    def task(self) -> Any:
        """Wait for what the first process gives."""
        return json.loads(self.store.get(TASK))

    def end(self) -> None:
        """Say that the first process has come to its end."""
        with suppress(RuntimeError):
            self.give_task(None)
            self.store.set(ENDED, "")

    def wait_for_first(self) -> None:
        """Wait until the first process has come to its end: torchrun ends all where one does that has not finished."""
        with suppress(RuntimeError):
            self.store.wait([ENDED], timedelta(seconds=END_SECONDS))

    @property
    def _note(self) -> Path:
        return cache_folder() / "torchrun" / f"{self.run_id}.json"

    @property
    def _agent(self) -> list[Any]:
        return [platform.node(), os.getppid()]

    def remember(self, folder: Path) -> None:
        """Keep, for a later attempt, which folder the run has."""
        self._note.parent.mkdir(parents=True, exist_ok=True)
        publish_text(self._note, json.dumps({"folder": str(folder), "agent": self._agent}))

    def remembered(self) -> Path | None:
        """Return the folder that an earlier attempt of this launch has; None where there was none."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        # Machines that join or leave make torchrun begin again without counting it.
        return Path(note["folder"]) if self.attempt > 0 or note["agent"] == self._agent else None

    def forget(self) -> None:
        """The run has finished."""
        self._note.unlink(missing_ok=True)


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
    )
