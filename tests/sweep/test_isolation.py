"""Jobs that go wrong end alone: the others finish, every cause is named, no run stays open and no process is left."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.commands import Ended, wait_for
from tests.sweep.conftest import FAULTY, Desk, end_of, processes_in
from tests.sweep.faults import CRASHES, EXITS, HANGS, IS_KILLED, RAISES

FOREVER = ("epochs=1000000", "sweep.max_heads=1")  # each job in a process of its own


@pytest.fixture(scope="module")
def faults(make_desk: Callable[[str], Desk]) -> tuple[Desk, Ended]:
    """A sweep of two sound jobs and five that go wrong, each in its own way."""
    desk = make_desk("faults")
    seeds = f"seed={HANGS},0,{RAISES},{EXITS},{IS_KILLED},{CRASHES},1"  # the others pass by the one that hangs
    return desk, desk.sweep(*FAULTY, seeds, "sweep.n_jobs=2", "sweep.timeout=30")


CAUSES = {
    0: (HANGS, "KILLED", "ran past sweep.timeout=30 s"),
    2: (RAISES, "FAILED", "FaultError: by design"),
    3: (EXITS, "FAILED", "called sys.exit(3)"),
    4: (IS_KILLED, "KILLED", "killed by SIGKILL"),
    5: (CRASHES, "KILLED", "killed by SIGSEGV"),
}


@pytest.mark.slow
def test_the_others_finish_and_the_end_names_each_job_with_its_cause_and_log(faults: tuple[Desk, Ended]) -> None:
    desk, ended = faults
    assert ended.code == 1, ended.err
    assert ended.errors[0] == "5 of 7 jobs did not finish"
    for line, (job, (seed, state, cause)) in zip(ended.errors[1:], CAUSES.items(), strict=False):
        assert line.startswith(f"job {job} seed={seed} {state}: {cause}")
        assert line.endswith(f"log {desk.sweep_folder / str(job) / 'job.log'}")
    assert ended.errors[-1] == f"to go on: python run.py -m sweep.resume={desk.sweep_folder}"
    assert {job for job, result in desk.results().items() if result["status"] == "FINISHED"} == {1, 6}


@pytest.mark.slow
def test_mlflow_says_the_truth_about_each_job_and_about_the_sweep(faults: tuple[Desk, Ended]) -> None:
    desk, _ = faults
    states = [run.info.status for run in desk.runs("run")]
    assert states == ["KILLED", "FINISHED", "FAILED", "FAILED", "KILLED", "KILLED", "FINISHED"]
    assert desk.parent().info.status == "FAILED"


@pytest.mark.slow
def test_the_log_of_a_job_holds_what_it_printed(faults: tuple[Desk, Ended]) -> None:
    desk, ended = faults
    log = (desk.sweep_folder / "2" / "job.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert "FaultError: by design" in log
    assert "[2] faults.FaultError: by design" in ended.out
    assert "Traceback" not in ended.err


@pytest.mark.slow
def test_the_ledger_ends_with_the_state_of_each_job(faults: tuple[Desk, Ended]) -> None:
    desk, _ = faults
    last = {entry["job"]: entry for entry in desk.ledger()}
    for job, (_, state, cause) in CAUSES.items():
        assert (last[job]["state"], last[job]["cause"].startswith(cause)) == (state, True)
    for job in (1, 6):
        assert last[job]["fingerprint"] == desk.results()[job]["fingerprint"]


@pytest.mark.slow
def test_no_process_is_left(faults: tuple[Desk, Ended]) -> None:
    desk, _ = faults
    assert processes_in(desk.folder) == []


@pytest.mark.slow
def test_with_on_error_stop_no_further_job_starts(desk: Desk) -> None:
    ended = desk.sweep(*FAULTY, f"seed={RAISES},1,2", "sweep.on_error=stop")
    assert ended.code == 1
    assert "jobs 1-2 were not started" in ended.errors
    assert desk.results().keys() == {0}
    assert [run.info.status for run in desk.runs("run")] == ["FAILED"]


def trains(desk: Desk, job: int) -> bool:
    return any(desk.folder.glob(f"outputs/sweeps/*/{job}/metrics.jsonl"))


@pytest.mark.slow
def test_ctrl_c_ends_the_running_jobs_and_the_sweep_with_true_states(
    desk: Desk, tmp_path_factory: pytest.TempPathFactory
) -> None:
    program = desk.begin(*FOREVER, "seed=0,1,2", "sweep.n_jobs=2", logs=tmp_path_factory.mktemp("logs"))
    wait_for(lambda: trains(desk, 0) and trains(desk, 1))
    program.signal(signal.SIGINT)  # to all of its group, as a terminal does
    ended = end_of(program)
    assert ended.code == 130, ended.err
    assert f"to go on: python run.py -m sweep.resume={desk.sweep_folder}" in ended.out
    assert [run.info.status for run in desk.runs("run")] == ["KILLED", "KILLED"]
    assert [run.info.status for run in desk.runs("sweep")] == ["KILLED"]
    assert {result["status"] for result in desk.results().values()} == {"KILLED"}
    assert processes_in(desk.folder) == []


def server_of(sweep: int) -> Path:
    """The folder in /proc of the process that a sweep's jobs are forked from."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == sweep and b"forkserver" in (process / "cmdline").read_bytes():
                return process
    raise AssertionError("the sweep has no server")


@pytest.fixture(scope="module")
def forever(make_desk: Callable[[str], Desk]) -> Iterator[tuple[Desk, subprocess.Popen[str]]]:
    """A sweep of two jobs that train until they are ended."""
    desk = make_desk("forever")
    process = desk.start(*FOREVER, "seed=0,1", "sweep.n_jobs=2")
    wait_for(lambda: trains(desk, 0) and trains(desk, 1))
    yield desk, process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_a_sweep_that_is_running_is_not_started_twice(forever: tuple[Desk, subprocess.Popen[str]]) -> None:
    second = forever[0].sweep("sweep.resume=latest", tiny=False)
    assert second.code == 2
    assert "another process is running this sweep" in second.errors[0]


@pytest.mark.slow
def test_the_server_that_jobs_are_forked_from_has_only_imported(forever: tuple[Desk, subprocess.Popen[str]]) -> None:
    server = server_of(forever[1].pid)
    threads = [(thread / "comm").read_text().strip() for thread in (server / "task").iterdir()]
    databases = [link for link in (server / "fd").iterdir() if ".db" in str(link.readlink())]
    # OpenBLAS has ended its own before the fork, and the allocator of pyarrow is made for forks.
    assert len([name for name in threads if name != "jemalloc_bg_thd"]) == 1, threads
    assert databases == []


@pytest.mark.slow
def test_all_die_with_a_sweep_that_is_killed(forever: tuple[Desk, subprocess.Popen[str]]) -> None:
    desk, process = forever
    assert len(processes_in(desk.folder)) >= 4  # itself, the server and two jobs
    process.kill()  # alone: its server and its jobs are not hit
    wait_for(lambda: not processes_in(desk.folder), seconds=15)
