"""A team's server, MLflow on PostgreSQL: told by many jobs at once, both killed in the middle, and nothing is lost."""

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from tests.commands import wait_for
from tests.faults.faulty_server import free_port, real_server
from tests.faults.processes import server
from tests.faults.scorecard import count
from tests.tracking import team_jobs
from tests.tracking.postgres import Postgres, postgres, programs
from tests.tracking.team_jobs import ENOUGH, EXPERIMENT, METRICS, SWEEP, uid_of
from tl_experiments.runtime.errors import SettingError
from tl_experiments.tracking.mlflow_tracker import MlflowTracker
from tl_experiments.tracking.sync import sync

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed (apt install postgresql)"),
]
NUM_JOBS = count(ordinary=8, full=32)
CREDENTIALS = ("team", "a long enough password")


class TeamServer:
    """MLflow's server on its database; each can be killed and started again, on the same port."""

    def __init__(self, database: Postgres, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.client = MlflowClient(self.uri)
        self._running = ExitStack()
        self.start()

    def start(self) -> None:
        self._running.enter_context(
            real_server(self.folder, database=self.database.uri, port=self.port, credentials=CREDENTIALS)
        )

    def kill(self) -> None:
        self._running.close()

    def runs(self) -> list[Run]:
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        return self.client.search_runs([experiment.experiment_id]) if experiment else []

    def runs_of(self, uid: str) -> list[Run]:
        return self.runs_by_uid()[uid]

    def runs_by_uid(self) -> dict[str, list[Run]]:
        found: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs():
            found[run.data.tags["tl.uid"]].append(run)
        return found

    def steps(self, run: Run, name: str) -> list[int]:
        return sorted(point.step for point in self.client.get_metric_history(run.info.run_id, name))


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamServer]:
    with postgres(port=free_port()) as database, pytest.MonkeyPatch.context() as patch:
        for name, value in zip(("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"), CREDENTIALS, strict=True):
            patch.setenv(name, value)
        team = TeamServer(database, tmp_path_factory.mktemp("team"))
        patch.setenv("MLFLOW_TRACKING_URI", team.uri)  # whose server a sync may send the credentials to
        yield team
        team.kill()


def make_tracker(team: TeamServer, folder: Path, *, uid: str, uri: str | None = None, **tags: str) -> MlflowTracker:
    return MlflowTracker(
        uri=uri or team.uri,
        experiment_name=EXPERIMENT,
        run_name=uid,
        uid=uid,
        parent_uid=None,
        folder=folder,
        tags=tags,
    )


def all_track(team: TeamServer) -> bool:
    """Whether each job has told an epoch; no answer of a busy server is none."""
    with suppress(MlflowException):
        return sum("val/acc" in run.data.metrics for run in team.runs()) == NUM_JOBS
    return False


def test_jobs_lose_and_double_nothing_though_server_and_database_are_killed_meanwhile(
    team: TeamServer, tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    with make_tracker(team, sweep, uid=SWEEP, **{"tl.kind": "sweep", "tl.sweep_id": SWEEP}):
        jobs = server().start(team.uri, str(sweep), str(NUM_JOBS), cwd=tmp_path, program=team_jobs.__file__)
        try:
            wait_for(lambda: all_track(team))
            team.kill()
            team.database.crash()
            time.sleep(2)  # in which every job makes points
            assert not jobs.ended, jobs.output
            team.database.start()
            team.start()
            time.sleep(1)
        finally:
            (sweep / ENOUGH).touch()
            jobs.wait(limit_seconds=180)
    assert jobs.code == 0, jobs.output
    assert sync(sweep, tracking_uri=None) == 0

    runs = team.runs_by_uid()
    [parent] = runs[SWEEP]
    figures = {"made": 0, "delivered": 0, "double": 0}
    for number in range(NUM_JOBS):
        made = range(1, 1 + json.loads((sweep / str(number) / "made.json").read_text())["epochs"])
        [run] = runs[uid_of(number)]
        for name in METRICS:
            steps = team.steps(run, name)
            figures["made"] += len(made)
            figures["delivered"] += len(set(steps) & set(made))
            figures["double"] += len(steps) - len(set(steps))
        assert (run.info.status, run.data.tags["mlflow.parentRunId"]) == ("FINISHED", parent.info.run_id)
        assert run.data.params["seed"] == str(number)
        assert run.data.metrics["test/acc"] == number / 100
        assert [given.dataset.name for given in run.inputs.dataset_inputs] == ["digits"]
        stored = team.client.download_artifacts(run.info.run_id, "result.json", str(tmp_path))
        assert json.loads(Path(stored).read_text()) == {"job": number}
    assert figures["made"] >= NUM_JOBS * len(METRICS) * 10
    assert figures == {"made": figures["made"], "delivered": figures["made"], "double": 0}
    [first] = runs[uid_of(0)]
    stored_model = {file.path for file in team.client.list_artifacts(first.info.run_id, "model")}
    assert {"model/MLmodel", "model/model.safetensors"} <= stored_model


def test_a_journal_that_is_sent_again_from_its_start_changes_nothing(team: TeamServer, tmp_path: Path) -> None:
    """As a machine does that knows nothing of an earlier delivery: PostgreSQL keeps a point once, by its key."""
    with make_tracker(team, tmp_path, uid="again") as tracker:
        tracker.log_params({"lr": 0.1})
        for epoch in range(1, 4):
            tracker.log_metrics({"val/acc": epoch / 10, "train/loss": float("nan")}, step=epoch)
    [before] = team.runs_of("again")
    (tmp_path / "tracking.sent").unlink()
    assert sync(tmp_path, tracking_uri=None) == 0
    [after] = team.runs_of("again")
    assert after.to_dictionary() == before.to_dictionary()
    assert team.steps(after, "val/acc") == [1, 2, 3]
    assert after.data.tags["tl.nonfinite"] == "train/loss"


def test_texts_that_postgresql_cannot_hold_hold_up_nothing(
    team: TeamServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It takes no NUL, and no sign that stands for a byte of a file name that is no UTF-8."""
    odd, kept = "a\0b\udcff é😀", "a\ufffdb\ufffd é😀"
    with make_tracker(team, tmp_path, uid="odd", **{"tl.odd": odd}) as tracker:
        tracker.log_params({"odd": odd})
        tracker.set_tags({"tl.later": odd, "tl.long": "x" * 20_000})
        tracker.log_dataset(name=odd, digest="0", context="train", source=odd)
        tracker.log_metrics({"val/acc": 0.5}, step=1)
    assert capsys.readouterr().out == ""
    [run] = team.runs_of("odd")
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"val/acc": 0.5})
    assert (run.data.params["odd"], run.data.tags["tl.odd"], run.data.tags["tl.later"]) == (kept, kept, kept)
    assert run.inputs.dataset_inputs[0].dataset.name == kept
    assert run.data.tags["tl.long"].startswith("xxx")


def test_a_stranger_is_told_so_and_leaves_nothing(
    team: TeamServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a guess")
    with pytest.raises(SettingError, match="refuses the credentials; set MLFLOW_TRACKING_USERNAME"):
        make_tracker(team, tmp_path, uid="stranger").__enter__()
    assert not (tmp_path / "tracking.jsonl").exists()


def test_a_server_that_is_called_by_a_name_it_does_not_know_says_so_at_the_start(
    team: TeamServer, tmp_path: Path
) -> None:
    by_another_name = team.uri.replace("127.0.0.1", "127.1")
    with pytest.raises(SettingError, match=r"does not answer to this name; expected one that its --allowed-hosts"):
        make_tracker(team, tmp_path, uid="stranger", uri=by_another_name).__enter__()
