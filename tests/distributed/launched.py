"""Runs of several processes: under torchrun, as a user starts them, or forked with what torchrun would tell them."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.faults.processes import Program, server

ROOT = Path(__file__).parents[2]
TINY = (
    *("backbone=timm", "backbone.name=test_efficientnet", "backbone.weights=null", "backbone.image_size=32"),
    *("dataset.train_size=160", "epochs=4", "runtime=ddp"),
    *("runtime.workers=0", "runtime.threads=1", "runtime.train_precision=fp32", "runtime.infer_precision=fp32"),
    *("optimizer=sgd", "lr=1e-2"),
)
FINETUNE = ("strategy=finetune", "strategy.batchnorm=eval")


def ranks(count: int, *arguments: str, folder: Path) -> Path:
    """Have so many processes train one run, and return its folder."""
    for process in start_ranks(count, *arguments, folder=folder):
        assert process.wait() == 0, process.output
    [run] = (folder / "outputs" / "runs").iterdir()
    return run


def start_ranks(count: int, *arguments: str, folder: Path, of_last: Mapping[str, str] | None = None) -> list[Program]:
    """Start processes that are forked from one that has imported; the last has variables of its own."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": folder.name}
    shared |= {"TORCHELASTIC_RESTART_COUNT": 0, "TL_CACHE_DIR": folder.parent / "cache", "OMP_NUM_THREADS": 1}
    processes = []
    for rank in range(count):
        own = (of_last or {}) if rank == count - 1 else {}
        environment = {key: str(value) for key, value in {**shared, "RANK": rank, "LOCAL_RANK": rank, **own}.items()}
        processes.append(server().start(*TINY, *arguments, cwd=folder, environment=environment))
    return processes


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


def wait_for(folder: Path, text: str, *, count: int = 1, seconds: float = 90) -> None:
    """Wait until a run has printed a text so often."""
    until = time.monotonic() + seconds
    while told(folder).count(text) < count:
        assert time.monotonic() < until, told(folder)
        time.sleep(0.05)


def told(folder: Path) -> str:
    """What a run has printed."""
    return (folder / "output.txt").read_text()
