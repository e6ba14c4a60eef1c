"""`hydra/launcher=ray`: a real cluster of two nodes, of which one dies, and what cannot be run is said at once."""

import re
import signal
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from synthetic_sweep import make_plan

from tests.commands import wait_for
from tests.faults.scorecard import count
from tests.sweep.conftest import Desk, end_of, processes_in
from tests.sweep.faults import RAISES
from tests.sweep.ray_nodes import Cluster, members
from tests.sweep.shared_sweep import HELD, held, in_the_middle, require_once, writers
from tests.sweep.test_isolation import trains
from tl_experiments.runtime.errors import SettingError
from tl_experiments.sweep import ray_node
from tl_experiments.sweep.ray_cluster import RayCluster
from tl_experiments.sweep.ray_launcher import RayLauncher, _RayTicket

if find_spec("ray") is None:
    pytest.skip("ray is not installed", allow_module_level=True)

RAY = "hydra/launcher=ray"
SEEDS = count(ordinary=1, full=8)  # each with two rates


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:  # paths of sockets must be short
        started = Cluster(Path(folder))
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
    return next((job for job in running if in_the_middle(desk, job)), None)


def require_none_left(desk: Desk) -> None:
    """See that no process is left; Ray ends its own ones a moment after a sweep."""
    wait_for(lambda: not processes_in(desk.folder), lambda: str(processes_in(desk.folder)), seconds=20)


@pytest.mark.slow
def test_a_node_that_dies_costs_its_jobs_which_go_on_elsewhere_and_one_that_fails_fails_alone(
    cluster: Cluster, make_desk: Callable[[str], Desk], tmp_path: Path
) -> None:
    desk = make_desk("two-nodes")
    seeds = ",".join(map(str, (*range(SEEDS), RAISES)))
    with held(desk):
        program = desk.begin(f"seed={seeds}", *HELD, "sweep.max_heads=1", RAY, logs=tmp_path)
        wait_for(lambda: program.ended or job_on(cluster, desk, "worker") is not None)
        killed = job_on(cluster, desk, "worker")
        cluster.kill("worker")
    ended = end_of(program)
    assert ended.code == 1, ended.err
    assert killed is not None, ended.out
    sound = 2 * SEEDS
    assert ended.errors[0] == f"2 of {sound + 2} jobs did not finish"
    for job, error in zip((sound, sound + 1), ended.errors[1:], strict=False):
        assert re.match(rf"job {job} seed={RAISES} lr=\S+ FAILED: FaultError: by design; log ", error)
        assert error.endswith(f"log {desk.sweep_folder / str(job) / 'job.log'}")
    require_once(desk, finished=sound, failed=2)
    log = (desk.sweep_folder / str(killed) / "job.log").read_text()
    assert log.count("starts on") == 2
    assert "goes on after epoch" in log
    logs = "".join(path.read_text() for path in desk.sweep_folder.glob("*/job.log"))
    assert logs.count("extracting features of 100 train images") <= 2, "once per node"
    require_none_left(desk)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_ctrl_c_ends_the_running_jobs_with_true_states_and_starts_no_other(
    make_desk: Callable[[str], Desk], tmp_path: Path
) -> None:
    desk = make_desk("stopped-on-ray")
    program = desk.begin("epochs=1000000", "sweep.max_heads=1", "seed=0,1,2", RAY, logs=tmp_path)
    wait_for(lambda: trains(desk, 0) or program.ended)
    program.signal(signal.SIGINT)  # to all of its group, as a terminal does
    ended = end_of(program)
    assert ended.code == 130, ended.err
    assert f"to go on: python run.py -m sweep.resume={desk.sweep_folder}" in ended.out
    assert {job: result["status"] for job, result in desk.results().items()} == {0: "KILLED"}
    assert [run.info.status for run in desk.runs("run")] == ["KILLED"]
    require_none_left(desk)


def test_a_job_that_reaches_a_node_after_its_sweep_was_stopped_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path), "subdir": "0"}}})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray_node, "load_job", lambda *_, **__: (None, None, config, {}))
    (tmp_path / ray_node.STOPPED).touch()
    with pytest.raises(KeyboardInterrupt):
        ray_node.run_on_node(b"", override="", number=0, told="", timeout=None, cwd=str(tmp_path), node_id="")
    assert not (tmp_path / "0").exists()


def test_a_sweep_that_goes_on_begins_jobs_again(tmp_path: Path) -> None:
    cancelled: list[str] = []
    fake: Any = SimpleNamespace(
        put=lambda content: content, task=lambda *_, **__: None, alive=frozenset, cancel=cancelled.append
    )
    launcher = RayLauncher(
        num_cpus=1, num_gpus=0, memory_gb=None, max_retries=0, autoscales=False, timeout=None, runtime_env={}
    )
    launcher._cluster, launcher._needs = fake, {"CPU": 1, "GPU": 0, "memory": 0}
    launcher.packed = lambda: b""  # type: ignore[method-assign]
    stopped, plan = tmp_path / ray_node.STOPPED, make_plan(2, folder=tmp_path)
    launcher.open(plan, tmp_path)
    launcher.cancel([])
    assert not stopped.exists()
    launcher.cancel([_RayTicket(fake, "a"), _RayTicket(fake, "b")])
    assert (stopped.exists(), cancelled) == (True, ["b", "a"])
    launcher.open(plan, tmp_path)
    assert not stopped.exists()


@pytest.mark.slow
def test_what_no_node_has_is_refused_before_anything_is_made(cluster: Cluster, desk: Desk) -> None:
    ended = desk.sweep("seed=0,1", RAY, "hydra.launcher.num_gpus=2")
    assert ended.code == 2
    [error] = ended.errors
    address = cluster.environment["RAY_ADDRESS"]
    assert error.startswith(
        f"hydra.launcher.num_cpus=1 hydra.launcher.num_gpus=2: no node of the Ray cluster at {address} has so much"
    )
    assert "the largest have 1 CPU, 0 GPU" in error
    assert list(desk.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:1", "no Ray cluster answers"),
        ("nowhere.invalid:6379", "no Ray cluster answers"),
        ("ray://127.0.0.1:10001", "expected HOST:PORT"),
        ("auto", "expected HOST:PORT"),
    ],
)
def test_an_address_where_no_cluster_answers_is_told_in_seconds(
    address: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    start = time.monotonic()
    with pytest.raises(SettingError, match=told):
        RayCluster.connect(runtime_env={})
    assert time.monotonic() - start < 20


def nodes(*resources: dict[str, Any]) -> RayCluster:
    """A cluster that only tells of its nodes."""
    alive = [{"Alive": True, "NodeID": str(number), "Resources": of} for number, of in enumerate(resources)]
    return RayCluster(SimpleNamespace(nodes=lambda: alive), "the Ray cluster at head:1")


@pytest.mark.parametrize(
    ("needs", "fits"),
    [
        ({"CPU": 8, "GPU": 1, "memory": 0}, True),
        ({"CPU": 8, "GPU": 0.5, "memory": 30e9}, True),
        ({"CPU": 64, "GPU": 0, "memory": 0}, True),
        ({"CPU": 64, "GPU": 1, "memory": 0}, False),  # no node has both
        ({"CPU": 1, "GPU": 3, "memory": 0}, False),
        ({"CPU": 1, "GPU": 0, "memory": 99e9}, False),
    ],
)
def test_a_job_fits_where_one_node_has_all_that_it_needs(needs: dict[str, float], fits: bool) -> None:
    cluster = nodes({"CPU": 8.0, "GPU": 2.0, "memory": 32e9}, {"CPU": 64.0, "memory": 64e9})
    assert cluster.has_gpus
    assert (cluster.lacks(needs) is None) is fits
    assert cluster.lacks(needs, patience_seconds=60) is None, "nodes may come back"
