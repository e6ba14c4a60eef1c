"""What Ray runs on a node: one job of a sweep, in a process of its own, which is watched and ended with its task."""

import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from tl_experiments.runtime.files import publish_text
from tl_experiments.sweep.cluster import load_job
from tl_experiments.sweep.process import GRACE_SECONDS, LOG, JobProcess, as_plain, fork_server

POLL_SECONDS = 0.2
PLACE = ".ray_node"  # in the folder of a job: the id of the node that ran it last
STOPPED = ".ray_stopped"  # in the folder of a sweep whose jobs were told to end
GPUS = "CUDA_VISIBLE_DEVICES"


def run_on_node(
    packed: bytes, *, override: str, number: int, told: str, timeout: float | None, cwd: str, node_id: str
) -> tuple[str, Any]:
    """Run a job to its end, and return how it ended as plain values.

    Args:
        packed: of the launcher.
        override: that names the job's group.
        number: as Hydra counts the job.
        told: what it runs, for people.
        timeout: seconds that it may take; None is any time.
        cwd: folder in which the sweep was typed; this node may lack it.
        node_id: of this node, for the launcher.

    Raises:
        KeyboardInterrupt: the launcher cancelled it; the job has ended, or was not begun.
    """
    with suppress(OSError):
        os.chdir(cwd)
    hydra_context, task_function, config, _ = load_job(packed, override=override, number=number)
    subdir = str(config.hydra.sweep.subdir)
    sweep_folder = Path(config.hydra.sweep.dir)
    folder = sweep_folder / subdir
    if (sweep_folder / STOPPED).exists():  # Ray takes tasks for cancelled that are on their way to a node
        raise KeyboardInterrupt
    folder.mkdir(parents=True, exist_ok=True)
    publish_text(folder / PLACE, node_id)
    environment = {GPUS: os.environ[GPUS]} if GPUS in os.environ else {}
    with (folder / LOG).open("a", encoding="utf-8") as log:
        gpus = f", GPU {environment[GPUS]}" if environment.get(GPUS) else ""
        log.write(f"starts on {platform.node()}{gpus}: {told or 'the defaults'}\n")
    _find_code_as_here()
    with _no_main_file():
        process = JobProcess(
            fork_server(),
            name=subdir,
            folder=folder,
            hydra_context=hydra_context,
            task_function=task_function,
            config=config,
            environment=environment,
        )
    try:
        while not process.ended:
            wait(process.events, timeout=POLL_SECONDS)
            process.listen()
            process.end_late(timeout)
    except BaseException as error:  # cancelled, or a defect: nothing is left running
        _end(process, str(error) or "interrupted by Ctrl-C")
        raise
    return as_plain(process.result())


def _find_code_as_here() -> None:
    """Have the job import what Ray does, whichever checkout of the project `ray start` was typed in."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    os.environ["PYTHONSAFEPATH"] = "1"


def _end(process: JobProcess, cause: str) -> None:
    """Let the job end after its step."""
    process.end(cause, number=signal.SIGINT)
    deadline = time.monotonic() + GRACE_SECONDS
    while not process.ended and time.monotonic() < deadline:
        wait(process.events, timeout=POLL_SECONDS)
        process.listen()
    process.end(cause, number=signal.SIGKILL)
    process.result()


@contextmanager
def _no_main_file() -> Iterator[None]:
    """Keep `multiprocessing` from running Ray's own program again in every job, as it does with a script."""
    main = vars(sys.modules["__main__"])
    file = main.pop("__file__", None)
    try:
        yield
    finally:
        if file is not None:
            main["__file__"] = file
