"""Runs of several processes: under torchrun, as a user starts them, or forked with what torchrun would tell them."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from safetensors.torch import load_file
from torch.distributed import TCPStore

from tests.commands import SMALL, wait_for
from tests.faults.processes import Program, Strike, server

ROOT = Path(__file__).parents[2]
TINY = (
    *SMALL,
    *("backbone.image_size=32", "dataset.train_size=160", "batch_size=16", "epochs=2", "runtime=ddp"),
    *("runtime.workers=0", "runtime.threads=1", "runtime.train_precision=fp32", "runtime.infer_precision=fp32"),
    *("optimizer=sgd", "lr=1e-2"),
)
FINETUNE = ("strategy=finetune", "strategy.batchnorm=eval")
CLOSE = 1e-6  # what the order of additions may change of a parameter in 20 steps


class Agent:
    """Starts processes as torchrun does; the store where those of all attempts meet is gone when it is."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self._run_id = uuid.uuid4().hex

    def start(
        self,
        count: int,
        *arguments: str,
        attempt: int = 0,
        of_last: Mapping[str, str] | None = None,
        hold_first: str | None = None,
    ) -> list[Program]:
        """Start processes that are forked from one that has imported.

        Args:
            count: of processes.
            arguments: of each.
            attempt: from 0.
            of_last: variables that the last one alone has.
            hold_first: the place, as `Strike` has it, where the first one stops until SIGCONT.
        """
        shared = {"WORLD_SIZE": count, "MASTER_ADDR": self._store.host, "MASTER_PORT": self._store.port}
        shared |= {"TORCHELASTIC_RUN_ID": self._run_id, "TORCHELASTIC_RESTART_COUNT": attempt}
        shared |= {"TORCHELASTIC_USE_AGENT_STORE": True, "OMP_NUM_THREADS": 1}
        shared |= {"TL_CACHE_DIR": self._folder.parent / "cache"}
        strikes = [Strike(hold_first, signal.SIGSTOP, whom="process") if hold_first else None, *[None] * (count - 1)]
        processes = []
        for rank, strike in enumerate(strikes):
            own = (of_last or {}) if rank == count - 1 else {}
            environment = {
                key: str(value) for key, value in {**shared, "RANK": rank, "LOCAL_RANK": rank, **own}.items()
            }
            processes.append(server().start(*arguments, cwd=self._folder, environment=environment, strike=strike))
        return processes


def ranks(count: int, *arguments: str, folder: Path) -> Path:
    """Have so many processes train one run, which is not tracked, and return its folder."""
    agent = Agent(folder)
    for process in agent.start(count, *TINY, "tracking=none", *arguments):
        assert process.wait() == 0, process.output
    return run_in(folder)


def run_in(folder: Path) -> Path:
    """Return the one run of a folder."""
    [run] = (folder / "outputs" / "runs").iterdir()
    return run


def distance(one: Path, other: Path) -> float:
    """Return by how much the parameters of two runs differ at most."""
    own, theirs = (load_file(run / "model" / "model.safetensors") for run in (one, other))
    return max(float((tensor - theirs[name]).abs().max()) for name, tensor in own.items())


def wait_until_held(process: Program) -> None:
    """Wait until a process has stopped at its place."""
    stat = Path(f"/proc/{process.pid}/stat")

    def is_held() -> bool:
        assert not process.ended, process.output
        return stat.read_text().rpartition(")")[2].split()[0] == "T"

    wait_for(is_held, lambda: process.output)


def torchrun(count: int, *arguments: str, folder: Path, options: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start a run; what it prints goes to `output.txt` in the folder."""
    output = (folder / "output.txt").open("a")
    own = {"TL_CACHE_DIR": str(folder.parent / "cache"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}", *options),
            *(str(ROOT / "run.py"), *arguments),
        ],
        cwd=folder,
        env={**os.environ, **own},
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
    )


def rank_processes(launcher: int) -> dict[int, int]:
    """Return rank → process id of what torchrun has started."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, StopIteration):
            parent = stat.read_text().rpartition(")")[2].split()[1]
            if int(parent) == launcher:
                environment = (stat.parent / "environ").read_bytes().decode(errors="replace").split("\0")
                rank = next(line for line in environment if line.startswith("RANK="))
                found[int(rank.removeprefix("RANK="))] = int(stat.parent.name)
    return found


def wait_until_told(folder: Path, text: str, *, count: int = 1) -> None:
    """Wait until a run has printed a text so often."""
    wait_for(lambda: told(folder).count(text) >= count, lambda: told(folder), seconds=90)


def told(folder: Path) -> str:
    """What a run has printed."""
    return (folder / "output.txt").read_text()
