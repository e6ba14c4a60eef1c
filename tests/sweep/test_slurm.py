"""`hydra/launcher=submitit_slurm`: what it tells sbatch is what sbatch documents, and a sweep comes through it."""

import os
import re
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.sweep.conftest import FAULTY, Desk
from tests.sweep.fake_slurm import install
from tests.sweep.faults import RAISES
from tl_experiments.config.register import register
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.signals import Terminated, terminable
from tl_experiments.sweep import submitted
from tl_experiments.sweep.cluster import ClusterJob
from tl_experiments.sweep.plan import PlannedJob
from tl_experiments.sweep.submitit_launcher import SlurmLauncher

if find_spec("submitit") is None:
    pytest.skip("submitit is not installed", allow_module_level=True)

SLURM = "hydra/launcher=submitit_slurm"
EVERYTHING = (
    *("partition=gpu", "account=me", "qos=high", "constraint=a100", "exclude=node1", "comment=mine", "gres=gpu:1"),
    *("gpus_per_node=null", "gpus_per_task=1", "cpus_per_task=null", "cpus_per_gpu=4", "mem_gb=null"),
    *("mem_per_gpu=16G", "mem_per_cpu=4G", "signal_delay_s=60"),
    *("setup=[module load cuda]", "stderr_to_stdout=false", "timeout_min=90"),
)
FORMS = {  # of values, as sbatch(1) has them
    "array": r"\d+-\d+%\d+",
    "cpus-per-task": r"\d+",
    "cpus-per-gpu": r"\d+",
    "gpus-per-node": r"([a-z]\w*:)?\d+",
    "gpus-per-task": r"([a-z]\w*:)?\d+",
    "job-name": r"\w+",
    "mem": r"\d+[KMGT]B?",
    "mem-per-cpu": r"\d+[KMGT]",
    "mem-per-gpu": r"\d+[KMGT]",
    "nodes": r"\d+(-\d+)?",
    "ntasks-per-node": r"\d+",
    "open-mode": r"append|truncate",
    "output": r"/\S+%A_%a\S*",
    "error": r"/\S+%A_%a\S*",
    "requeue": r"",
    "signal": r"USR2@\d+",
    "time": r"\d+",  # minutes
    "time-min": r"\d+",
}


def documented() -> set[str]:
    """The names of the options of sbatch."""
    lines = (Path(__file__).parent / "sbatch_options.txt").read_text().splitlines()
    return {re.match(r"--([a-z-]+)", line).group(1) for line in lines if line.startswith("--")}  # type: ignore[union-attr]


def told(script: str) -> dict[str, str]:
    """The options of a batch script, with their values."""
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]
    return {name: value.strip("'\"") for name, _, value in (line.partition("=") for line in lines)}


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with Slurm's commands, on PATH."""
    folder = tmp_path_factory.mktemp("slurm")
    install(folder)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTEST_XDIST_TESTRUNUID", os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid())))
    return folder


@pytest.mark.slow
def test_a_sweep_through_slurm_is_one_array_whose_jobs_end_alone(slurm: Path, desk: Desk) -> None:
    ended = desk.sweep(*FAULTY, f"seed=0,{RAISES}", SLURM)
    assert ended.code == 1, ended.err
    assert ended.errors[1].startswith(f"job 1 seed={RAISES} FAILED: FaultError: by design; log ")
    assert [run.info.status for run in desk.runs("run")] == ["FINISHED", "FAILED"]
    assert "FaultError: by design" in (desk.sweep_folder / "1" / "job.log").read_text()
    options = told((slurm / "script.sh").read_text())
    require_documented(options)
    assert options["array"] == "0-1%2"
    assert {key: options[key] for key in ("requeue", "signal", "open-mode", "gpus-per-node", "mem", "time")} == {
        **{"requeue": "", "signal": "USR2@120", "open-mode": "append"},
        **{"gpus-per-node": "1", "mem": "32GB", "time": "1440"},
    }


def require_documented(options: dict[str, str]) -> None:
    """See that sbatch knows each option, and takes a value of this form."""
    assert options.keys() <= documented()
    for name, form in FORMS.items():
        if name in options:
            assert re.fullmatch(form, options[name]), (name, options[name])


@pytest.mark.usefixtures("slurm")
def test_every_key_of_the_preset_becomes_an_option_that_sbatch_documents(tmp_path: Path) -> None:
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    register()
    typed = [f"hydra.launcher.{line}" for line in EVERYTHING]
    typed.append("+hydra.launcher.additional_parameters={mail-type: END, time-min: 30}")
    with initialize_config_dir(str(Path("conf").absolute()), version_base="1.3"):
        config = compose("config", [SLURM, f"hydra.sweep.dir={tmp_path}", *typed], return_hydra_config=True)
        launcher = instantiate(config.hydra.launcher)
    executor = launcher.executor()._executor
    executor.parameters["map_count"] = 40
    options = told(executor._make_submission_file_text("true", "uid"))
    require_documented(options)
    assert options["array"] == "0-39%16"
    assert options["time-min"] == "30"
    expected = {"partition": "gpu", "account": "me", "qos": "high", "constraint": "a100", "exclude": "node1"}
    expected |= {"comment": "mine", "gres": "gpu:1", "gpus-per-task": "1", "cpus-per-gpu": "4", "mail-type": "END"}
    expected |= {"mem-per-gpu": "16G", "mem-per-cpu": "4G", "signal": "USR2@60", "requeue": "", "time": "90"}
    assert {key: options.get(key) for key in expected} == expected


ACCEPTS = r"""
import pathlib, re, sys
text, log = pathlib.Path(sys.argv[-1]).read_text(), pathlib.Path(__file__).with_name("arrays")
arrays = log.read_text().split() if log.exists() else []
if len(arrays) == int(pathlib.Path(__file__).with_name("room").read_text()):
    sys.exit("sbatch: error: QOSMaxSubmitJobPerUserLimit")
log.write_text(" ".join([*arrays, re.search(r"--array=(\S+)", text).group(1) if "--array" in text else "one"]))
print(f"Submitted batch job {len(arrays)}")
"""
CANCELS = r"""
import pathlib, sys
with pathlib.Path(__file__).with_name("cancelled").open("a") as file:
    print(sys.argv[1], len(sys.argv[2:]), file=file)
"""


def test_more_jobs_than_an_array_may_have_are_several_and_none_stays_of_those_that_are_refused(
    slurm: Path, tmp_path: Path
) -> None:
    for name, program in {"sbatch": ACCEPTS, "scancel": CANCELS}.items():
        (slurm / name).write_text(f"#!{sys.executable}\n{program}")
    (slurm / "room").write_text("3")
    launcher = SlurmLauncher(submitit_folder=str(tmp_path), array_parallelism=16)
    launcher._submitter, launcher._packed = launcher.executor(), b""
    host = PlannedJob(0, "job", (), {}, {"allow_targets": []}, {}, uid="", folder="0", digest="")
    jobs = [ClusterJob(number, number, host, tmp_path, "", "") for number in range(2001)]
    assert len(launcher.submit(jobs)) == 2001
    assert (slurm / "arrays").read_text().split() == ["0-999%16", "0-999%16", "one"]
    (slurm / "arrays").write_text("one one")
    with pytest.raises(RunFailed, match="QOSMaxSubmitJobPerUserLimit"):
        launcher.submit(jobs)
    assert (slurm / "cancelled").read_text().splitlines() == ["--state=PENDING 1000", "--signal=INT 1000"]


GRACE = (
    "   PreemptEligibleTime=2026-01-01T10:00:00 PreemptTime=2026-01-01T10:05:00\n   Requeue=1 Restarts=0 BatchFlag=1"
)
QUEUED_AGAIN = "   PreemptEligibleTime=2026-01-01T10:00:00 PreemptTime=None\n   Requeue=1 Restarts=1 BatchFlag=1"
CANCELLED = "   PreemptEligibleTime=2026-01-01T10:00:00 PreemptTime=None\n   Requeue=1 Restarts=0 BatchFlag=1"


@pytest.mark.parametrize(("told", "is_taken"), [(GRACE, True), (QUEUED_AGAIN, True), (CANCELLED, False), ("", False)])
def test_sigterm_from_slurm_queues_a_job_again_only_where_the_node_is_taken(
    told: str, is_taken: bool, slurm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scontrol = slurm / "scontrol"
    scontrol.write_text(f"#!{sys.executable}\nprint({told!r})")
    scontrol.chmod(0o755)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    handled: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: handled.append(number))
        for number in (signal.SIGUSR2, signal.SIGTERM)
    }

    def run(*_: object) -> None:
        with terminable():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    monkeypatch.setattr(submitted, "load_job", lambda *_, **__: ())
    monkeypatch.setattr(submitted, "run_hydra_job", run)
    monkeypatch.setattr(submitted.SubmittedJob, "_print_to_log", lambda _: None)
    job = submitted.SubmittedJob(b"", "", 0, str(tmp_path / "log"), "")
    try:
        if is_taken:
            with pytest.raises(Terminated):  # no result, for which the sweep waits on
                job()
        else:
            assert job() == ("JobKilled", "received SIGTERM")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert handled == [signal.SIGUSR2] * is_taken, "submitit's handler, which queues again"


def test_without_slurm_it_is_one_line_and_nothing_is_made(desk: Desk) -> None:
    ended = desk.sweep("seed=0,1", SLURM)
    assert ended.code == 2
    [error] = ended.errors
    assert error.startswith("hydra/launcher=submitit_slurm: ")
    assert "srun" in error
    assert list(desk.folder.iterdir()) == []
