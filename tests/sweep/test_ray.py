"""`hydra/launcher=ray`: a real cluster of two nodes, of which one dies, and what cannot be run is said at once."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.sweep.conftest import FAULTY, Desk, processes_in, wait
from tests.sweep.faults import IS_KILLED, RAISES
from tests.sweep.ray_nodes import Cluster, members
from tests.sweep.sixteen import SIXTEEN, digests, require_sixteen, trained_epochs, writers
from tests.sweep.test_isolation import wait_for

if find_spec("ray") is None:
    pytest.skip("ray is not installed", allow_module_level=True)

RAY = "hydra/launcher=ray"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("r"))  # paths of sockets must be short
    try:
        started.start()
        with pytest.MonkeyPatch.context() as patch:
            for key, value in started.environment.items():
                patch.setenv(key, value)
            yield started
    finally:
        started.stop()


def job_on(cluster: Cluster, desk: Desk, node: str) -> int | None:
    """Return the number of a job that a node runs and that has trained some epochs."""
    of_node = members(cluster.sessions[node])
    running = [job for pid, job in writers(desk) if pid in of_node]
    return next((job for job in running if 2 <= trained_epochs(desk, job) < 15), None)


@pytest.mark.slow
def test_a_node_that_dies_costs_its_jobs_which_go_on_elsewhere_and_nothing_is_done_twice(
    cluster: Cluster, make_desk: Callable[[str], Desk]
) -> None:
    desk = make_desk("two-nodes")
    process = desk.start(*SIXTEEN, "sweep.max_heads=4", RAY)
    wait_for(lambda: process.poll() is not None or job_on(cluster, desk, "worker") is not None)
    killed = job_on(cluster, desk, "worker")
    cluster.kill("worker")
    ended = wait(process)
    assert ended.code == 0, ended.err
    assert killed is not None, ended.out
    require_sixteen(desk)
    log = (desk.sweep_folder / str(killed) / "job.log").read_text()
    assert log.count("starts on") == 2
    assert "goes on after epoch" in log
    assert [line for line in ended.out.splitlines() if line.startswith(f"[{killed}] FINISHED")]
    logs = "".join(path.read_text() for path in desk.sweep_folder.glob("*/job.log"))
    assert logs.count("extracting features of 100 train images") <= 2, "once per node"
    assert processes_in(desk.folder) == []
