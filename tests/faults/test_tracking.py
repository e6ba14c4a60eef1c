"""A tracking server that is away costs no step: what it was not told is kept, and delivered later, once."""

import contextlib
import itertools
import json
import os
import re
import shutil
import socketserver
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from tests.commands import SMALL, Ended
from tests.faults import processes
from tests.faults.faulty_server import (
    GARBAGE,
    HANG,
    LOSE,
    OBJECT,
    PASS,
    REFUSE,
    SLOW,
    FaultyServer,
    real_server,
)  # fmt: skip
from tests.faults.scorecard import FULL, record
from tl_experiments.config.member import Member
from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.run_lock import LOCK
from tl_experiments.sweep.dead import close_what_died
from tl_experiments.sweep.report_again import folder_of
from tl_experiments.sweep.resumed import resumed_job
from tl_experiments.tracking import mlflow_store
from tl_experiments.tracking.address import (
    CREDENTIALS,
    absolute_uri,
    lasting_uri,
    redacted,
    require_own_server,
    shown,
)
from tl_experiments.tracking.find_run import folder_of_run
from tl_experiments.tracking.journal import Header, Journal
from tl_experiments.tracking.mlflow_run import MlflowRun
from tl_experiments.tracking.mlflow_tracker import MlflowTracker
from tl_experiments.tracking.run_record import GROUPS, RunRecord
from tl_experiments.tracking.sync import sync

EXPERIMENT = "faults"
ORDINARY = (HANG, LOSE, GARBAGE)  # faults that differ most
METRICS = ("train/loss", "val/acc")
STALL_SECONDS = 0.1  # that a call of the thread that trains may take, on a busy machine
uids = (f"run-{number}" for number in itertools.count())


def make_tracker(
    uri: str | None, folder: Path, *, uid: str | None = None, parent_uid: str | None = None, **tags: str
) -> MlflowTracker:
    return MlflowTracker(
        uri=uri,
        experiment_name=EXPERIMENT,
        run_name="0",
        uid=uid or next(uids),
        parent_uid=parent_uid,
        folder=folder,
        tags=tags,
    )


class Trainer:
    """Logs epochs as a run does, and keeps how long the slowest call took."""

    def __init__(self, tracker: MlflowTracker) -> None:
        self.tracker = tracker
        self.epochs: list[int] = []
        self.stall = 0.0

    def train(self, *, epochs: int, seconds: float = 0.3) -> None:
        for _ in range(epochs):
            step = len(self.epochs) + 1
            start = time.perf_counter()
            self.tracker.log_metrics(dict.fromkeys(METRICS, step / 100), step=step)
            self.stall = max(self.stall, time.perf_counter() - start)
            self.epochs.append(step)
            time.sleep(seconds)


def runs_of(client: MlflowClient, uid: str) -> list[Run]:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return client.search_runs([experiment.experiment_id], f"tags.`tl.uid` = '{uid}'", ViewType.ACTIVE_ONLY)


def figures_of(client: MlflowClient, uid: str, epochs: list[int]) -> dict[str, int]:
    """What became of the points that a run made."""
    found = runs_of(client, uid)
    steps = [[point.step for point in client.get_metric_history(found[0].info.run_id, name)] for name in METRICS]
    return {
        "runs_per_uid": len(found),
        "points_made": len(METRICS) * len(epochs),
        "points_delivered": sum(len(set(of_one)) for of_one in steps),
        "duplicates": sum(len(of_one) - len(set(of_one)) for of_one in steps),
    }


def is_exact(figures: dict[str, int]) -> bool:
    exact = {"runs_per_uid": 1, "points_delivered": figures["points_made"], "duplicates": 0}
    return exact.items() <= figures.items()


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without runs, which takes seconds to make."""
    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="module")
def backend(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(schema, folder / "mlflow.db")
    with real_server(folder, database=f"sqlite:///{folder / 'mlflow.db'}") as port:
        yield port


@pytest.fixture
def client(backend: int) -> MlflowClient:
    """A client that asks the real server itself."""
    return MlflowClient(f"http://127.0.0.1:{backend}")


@pytest.fixture
def server(backend: int) -> Iterator[FaultyServer]:
    faulty = FaultyServer(backend)
    yield faulty
    faulty.close()


@pytest.fixture
def stub() -> Iterator[FaultyServer]:
    """A server that never works."""
    faulty = FaultyServer()
    yield faulty
    faulty.close()


@pytest.fixture
def database(schema: Path, tmp_path: Path) -> str:
    """The address of a store in the test's folder."""
    shutil.copy(schema, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [REFUSE, HANG, SLOW, LOSE, "500", "429", "401", GARBAGE, OBJECT] if FULL else ORDINARY
)
def test_a_fault_in_the_middle_of_a_run_stalls_nothing_and_every_point_arrives_once(
    fault: str, server: FaultyServer, client: MlflowClient, tmp_path: Path
) -> None:
    uid = next(uids)
    with make_tracker(server.uri, tmp_path, uid=uid) as tracker:
        assert tracker.run_id is not None
        tracker.log_params({"lr": 0.1})
        trainer = Trainer(tracker)
        trainer.train(epochs=3)
        server.mode = fault
        trainer.train(epochs=6)
        tracker.log_metrics({"val/acc_best": 0.09}, step=0)
        (tmp_path / "result.json").write_text("{}")
        tracker.log_file(tmp_path / "result.json")
        end = time.perf_counter()
    end_seconds = time.perf_counter() - end
    server.mode = PASS
    assert sync(tmp_path, tracking_uri=None) == 0
    [run] = runs_of(client, uid)
    assert (run.info.status, run.data.params, run.data.metrics["val/acc_best"]) == ("FINISHED", {"lr": "0.1"}, 0.09)
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["result.json"]
    figures = figures_of(client, uid, trainer.epochs)
    stall = round(1000 * trainer.stall, 1)
    record(f"tracking, in the middle: {fault}", stall_ms=stall, end_seconds=round(end_seconds, 1), **figures)
    assert is_exact(figures), figures
    assert trainer.stall < STALL_SECONDS
    assert end_seconds < 20


@pytest.mark.slow
@pytest.mark.parametrize("fault", [REFUSE, HANG, LOSE, "500", "429", GARBAGE, OBJECT] if FULL else ORDINARY)
def test_a_server_that_is_away_at_the_start_delays_it_by_seconds(
    fault: str, server: FaultyServer, client: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uid, start = next(uids), time.perf_counter()
    server.mode = fault
    with make_tracker(server.uri, tmp_path, uid=uid) as tracker:
        start_seconds = time.perf_counter() - start
        assert tracker.run_id is None
        trainer = Trainer(tracker)
        trainer.train(epochs=2)
        end = time.perf_counter()
    end_seconds = time.perf_counter() - end
    out = capsys.readouterr().out
    assert f"{server.uri} cannot be reached" in out
    assert f"not delivered to {server.uri}; deliver by: tlx sync {tmp_path}" in out
    assert len(out.splitlines()) == 2
    server.mode = PASS
    assert sync(tmp_path, tracking_uri=None) == 0
    figures = figures_of(client, uid, trainer.epochs)
    seconds = {"start_seconds": round(start_seconds, 1), "end_seconds": round(end_seconds, 1)}
    record(f"tracking, at the start: {fault}", stall_ms=round(1000 * trainer.stall, 1), **seconds, **figures)
    assert is_exact(figures), figures
    assert trainer.stall < STALL_SECONDS
    assert start_seconds < 10
    assert end_seconds < 10


@pytest.mark.slow
def test_a_server_that_comes_back_is_told_everything_while_the_run_goes_on(
    server: FaultyServer, client: MlflowClient, tmp_path: Path
) -> None:
    uid = next(uids)
    server.mode = REFUSE
    with make_tracker(server.uri, tmp_path, uid=uid) as tracker:
        trainer = Trainer(tracker)
        trainer.train(epochs=2)
        server.mode = PASS
        trainer.train(epochs=10)
        assert tracker.run_id is not None
        assert len(client.get_metric_history(tracker.run_id, "val/acc")) > 2
    assert is_exact(figures_of(client, uid, trainer.epochs))


@pytest.mark.slow
def test_a_run_that_was_created_by_a_call_that_seemed_lost_is_one_run(
    server: FaultyServer, client: MlflowClient, tmp_path: Path
) -> None:
    """Two runs of one uid, as two processes leave them that both found none: the older stays and is told everything."""
    uid = next(uids)
    with make_tracker(server.uri, tmp_path, uid=uid) as tracker:
        trainer = Trainer(tracker)
        trainer.train(epochs=2)
        [run] = runs_of(client, uid)
        tags = {"tl.uid": uid}
        older = client.create_run(run.info.experiment_id, start_time=run.info.start_time - 1, tags=tags)
        trainer.train(epochs=2)
    [kept] = runs_of(client, uid)
    assert (kept.info.run_id, kept.info.status) == (older.info.run_id, "FINISHED")
    assert is_exact(figures_of(client, uid, trainer.epochs))


@pytest.mark.slow
def test_delivering_again_without_knowing_what_was_delivered_changes_nothing(
    server: FaultyServer, client: MlflowClient, tmp_path: Path
) -> None:
    uid = next(uids)
    with make_tracker(server.uri, tmp_path, uid=uid) as tracker:
        trainer = Trainer(tracker)
        trainer.train(epochs=3, seconds=0)
        tracker.log_dataset(name="digits", digest="0", context="train", source="here")
    [before] = runs_of(client, uid)
    num_requests = server.num_requests
    assert sync(tmp_path, tracking_uri=None) == 0
    assert server.num_requests == num_requests, "what is known to be there was sent again"
    (tmp_path / "tracking.sent").unlink()
    assert sync(tmp_path, tracking_uri=None) == 0
    [after] = runs_of(client, uid)
    assert after.to_dictionary() == before.to_dictionary()
    figures = figures_of(client, uid, trainer.epochs)
    record("tracking, delivered twice", **figures)
    assert is_exact(figures)


@pytest.mark.slow
def test_a_store_that_was_made_anew_is_told_everything(
    server: FaultyServer, client: MlflowClient, tmp_path: Path
) -> None:
    """The run is gone from the store: what is known to be delivered is delivered again."""
    uid = next(uids)
    with make_tracker(server.uri, tmp_path, uid=uid) as tracker:
        trainer = Trainer(tracker)
        trainer.train(epochs=2, seconds=0)
    assert sync(tmp_path, tracking_uri=None) == 0
    client.delete_run(str(tracker.run_id))
    (tmp_path / "tracking.sent").write_text(
        (tmp_path / "tracking.sent").read_text().replace('"store": "', '"store": "x')
    )
    assert sync(tmp_path, tracking_uri=None) == 0
    assert is_exact(figures_of(client, uid, trainer.epochs))


@pytest.mark.slow
def test_many_runs_of_a_process_wait_for_a_hung_server_together(
    stub: FaultyServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.mode = HANG
    start = time.perf_counter()
    with ExitStack() as stack:
        trackers = [stack.enter_context(make_tracker(stub.uri, tmp_path / str(number))) for number in range(20)]
        start_seconds = time.perf_counter() - start
        trainers = [Trainer(tracker) for tracker in trackers]
        for trainer in trainers:
            trainer.train(epochs=2, seconds=0)
        end = time.perf_counter()
    end_seconds = time.perf_counter() - end
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2, told
    assert told[1].endswith(f"of 20 runs were not delivered to {stub.uri}; deliver by: tlx sync {tmp_path}")
    record("tracking, 20 runs, hung", start_seconds=round(start_seconds, 1), end_seconds=round(end_seconds, 1))
    assert start_seconds < 10
    assert end_seconds < 10


@pytest.mark.parametrize("status", ["401", "403"])
def test_refused_access_are_one_clear_error_at_the_start_and_leave_nothing(
    status: str, stub: FaultyServer, tmp_path: Path
) -> None:
    stub.mode = status
    start = time.perf_counter()
    with pytest.raises(SettingError, match="refuses the credentials; set MLFLOW_TRACKING_USERNAME") as caught:
        make_tracker(stub.uri, tmp_path).__enter__()
    seconds = time.perf_counter() - start
    record(f"tracking, at the start: {status}", error_seconds=round(seconds, 1))
    assert "\n" not in str(caught.value)
    assert seconds < 10
    assert not (tmp_path / "tracking.jsonl").exists()


def test_a_store_that_is_away_hides_no_error_of_the_run(stub: FaultyServer, tmp_path: Path) -> None:
    stub.mode = "500"
    with pytest.raises(ZeroDivisionError), make_tracker(stub.uri, tmp_path):
        raise ZeroDivisionError("by design")
    assert '"status": "FAILED", "error": "ZeroDivisionError: by design"' in (tmp_path / "tracking.jsonl").read_text()


@pytest.fixture
def away(stub: FaultyServer) -> str:
    stub.mode = REFUSE
    return stub.uri


def test_a_sweep_is_delivered_as_a_whole_to_a_store_of_ones_choice(
    away: str, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sweep"
    with make_tracker(away, folder, uid="sweep", **{"tl.kind": "sweep"}):
        for job in range(3):
            with make_tracker(away, folder / str(job), uid=f"job-{job}", parent_uid="sweep") as tracker:
                Trainer(tracker).train(epochs=2, seconds=0)
    capsys.readouterr()
    assert sync(tmp_path, tracking_uri=None) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[1:] == [f"tracking.uri={away} cannot be opened: connection refused; 4 of 4 journals are left for later"]
    assert sync(folder / "0", tracking_uri=database) == 0  # before the sweep is there
    assert sync(tmp_path, tracking_uri=database) == 0
    client = MlflowClient(database)
    [parent] = runs_of(client, "sweep")
    jobs = [run for job in range(3) for run in runs_of(client, f"job-{job}")]
    assert [run.data.tags["mlflow.parentRunId"] for run in jobs] == [parent.info.run_id] * 3
    assert {run.info.status for run in [parent, *jobs]} == {"FINISHED"}
    assert all(is_exact(figures_of(client, f"job-{job}", [1, 2])) for job in range(3))


def test_one_entry_that_the_store_will_never_take_holds_up_no_other(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone.txt").touch()
    with make_tracker(database, tmp_path, uid="odd") as tracker:
        tracker.log_metrics({"acc@1": 1.0}, step=1)  # a name that MLflow refuses
        tracker.log_file(tmp_path / "gone.txt")
        (tmp_path / "gone.txt").unlink()
        Trainer(tracker).train(epochs=2, seconds=0)
    assert "refused" in capsys.readouterr().out
    [run] = runs_of(MlflowClient(database), "odd")
    assert run.info.status == "FINISHED"
    assert is_exact(figures_of(MlflowClient(database), "odd", [1, 2]))


def test_a_file_that_cannot_be_stored_is_left_for_later_and_holds_up_nothing(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    (tmp_path / "mlartifacts").touch()  # where a folder should be
    with make_tracker(database, folder, uid="files") as tracker:
        (folder / "result.json").write_text("{}")
        tracker.log_file(folder / "result.json")
        Trainer(tracker).train(epochs=2, seconds=0)
    assert "1 entry was not delivered" in capsys.readouterr().out
    client = MlflowClient(database)
    [run] = runs_of(client, "files")
    assert run.info.status == "FINISHED"
    assert is_exact(figures_of(client, "files", [1, 2]))
    assert sync(folder, tracking_uri=None) == 1
    (tmp_path / "mlartifacts").unlink()
    assert sync(folder, tracking_uri=None) == 0
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["result.json"]


def test_what_was_delivered_of_an_earlier_run_says_nothing_of_another_one_in_its_folder(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_tracker(database, tmp_path / "run", uid="earlier") as tracker:
        Trainer(tracker).train(epochs=2, seconds=0)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_run", None)  # the store is away
        with make_tracker(database, tmp_path / "run", uid="later") as tracker:
            Trainer(tracker).train(epochs=2, seconds=0)
    assert sync(tmp_path, tracking_uri=None) == 0
    assert is_exact(figures_of(MlflowClient(database), "later", [1, 2]))


def test_a_database_that_another_process_locks_stalls_nothing(database: str, tmp_path: Path) -> None:
    with make_tracker(database, tmp_path, uid="locked") as tracker:
        trainer = Trainer(tracker)
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            trainer.train(epochs=8)
            [run_id, is_busy] = [tracker.run_id, tracker._delivery.is_due]  # type: ignore[union-attr]
            other.execute("ROLLBACK")
    assert run_id
    assert is_busy, "the database took entries although it was locked"
    figures = figures_of(MlflowClient(database), "locked", trainer.epochs)
    record("tracking, sqlite locked", stall_ms=round(1000 * trainer.stall, 1), **figures)
    assert is_exact(figures), figures
    assert trainer.stall < STALL_SECONDS


@pytest.mark.parametrize("path", ["../secret.txt", "/etc/hostname", "link.txt", "links"])
def test_a_journal_that_was_tampered_with_delivers_nothing_from_outside_of_its_folder(
    path: str, away: str, database: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    (tmp_path / "secret.txt").write_text("hush")
    with make_tracker(away, folder, uid="tampered"):
        pass
    (folder / "links").mkdir()
    for link in (folder / "link.txt", folder / "links" / "inner.txt"):
        link.symlink_to(tmp_path / "secret.txt")
    kind = "model" if path == "links" else "file"
    with (folder / "tracking.jsonl").open("a") as file:
        file.write(f'{{"kind": "{kind}", "path": "{path}"}}\n{{"kind": "nonsense"}}\n[1]\n')
    assert sync(folder, tracking_uri=database) == 1  # the entries are named
    [run] = runs_of(MlflowClient(database), "tampered")
    assert MlflowClient(database).list_artifacts(run.info.run_id) == []


def test_credentials_are_not_sent_to_a_server_that_only_a_folder_names(
    stub: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.mode = "500"
    with make_tracker(stub.uri, tmp_path):
        pass
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "my-token")
    num_requests = stub.num_requests
    assert sync(tmp_path, tracking_uri=None) == 1
    assert f"expected --tracking-uri {stub.uri}, if it may have them" in capsys.readouterr().out
    assert stub.num_requests == num_requests
    assert sync(tmp_path, tracking_uri=stub.uri) == 1
    assert stub.num_requests > num_requests


PASSWORD = "hush-hush"


@pytest.mark.parametrize("mode", [REFUSE, "401", GARBAGE])
def test_a_password_in_the_address_is_never_written_or_told(
    mode: str, stub: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stub.mode = mode
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{PASSWORD}@127.0.0.1:{stub.port}/")
    told = ""
    try:
        with make_tracker(None, tmp_path, uid="secret") as tracker:
            Trainer(tracker).train(epochs=1, seconds=0)
            told = f"{tracker.ui_command()} {tracker.charts_link()}"
        assert sync(tmp_path, tracking_uri=None) == 1
    except SettingError as error:
        told = f"{error!r} {error.__cause__!r}"
    told += "".join(capfd.readouterr())
    told += "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "http://***@127.0.0.1" in told
    assert PASSWORD not in told
    assert lasting_uri(None) is None


@pytest.mark.parametrize(
    "uri",
    [
        f"http://me:{PASSWORD}@host",
        f"https://{PASSWORD}@host",
        f"postgresql://me:{PASSWORD}@host/db",
        f"mysql://host/db?password={PASSWORD}",
        f"postgresql://host/db?sslmode=require&sslpassword={PASSWORD}",
        f"https://host?access_token={PASSWORD}",
        f"mssql+pyodbc:///?odbc_connect=DRIVER%3D%7Bx%7D%3BUID%3Dme%3BPWD%3D{PASSWORD}",
    ],
)
def test_an_address_with_a_password_is_refused_where_it_is_typed(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="put it in the environment variable MLFLOW_TRACKING_URI") as caught:
        absolute_uri(uri)
    assert PASSWORD not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert absolute_uri(None) == uri
    assert PASSWORD not in str(make_tracker(None, Path()).ui_command())
    assert PASSWORD not in shown(uri)
    assert PASSWORD not in redacted(f"could not parse {uri}; tried {PASSWORD}", uri)


def kill(uri: str, folder: Path, *, uid: str) -> None:
    """Leave what a run leaves that was killed."""
    record = RunRecord(uid=uid, name=uid, choices=dict.fromkeys(GROUPS, "x"), sweep_id=None, began="2026-01-01")
    folder.mkdir(parents=True)
    record.save(folder)
    header = Header(EXPERIMENT, uid, uid, None, {"tl.uid": uid}, uri, 1)
    with Journal.continued(folder, header) as kept:
        kept.append("begin", time=1)


def last_of(folder: Path) -> list[str]:
    return [entry["status"] for entry in Journal.read(folder).entries if entry["kind"] == "end"]


def test_runs_that_died_are_ended_in_their_folders_and_told_to_no_server_that_only_these_name(
    stub: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "my-token")
    folders = [tmp_path / "outputs" / "runs" / "a", tmp_path / "b"]  # `hydra.run.dir=b`
    for folder in (*folders, tmp_path / "resumed"):
        kill(stub.uri, folder, uid=folder.name)
    close_what_died(tmp_path / "resumed")
    assert stub.num_requests == 0
    for folder in folders:
        assert last_of(folder) == ["KILLED"]
        assert json.loads((folder / "result.json").read_text())["status"] == "KILLED"
    assert last_of(tmp_path / "resumed") == [], "it is about to go on"
    assert "resumed" not in (out := capsys.readouterr().out)
    assert f"are told to {stub.uri} by: tlx sync" in out
    close_what_died(tmp_path / "resumed")
    assert capsys.readouterr().out == "", "nothing is told twice"


def test_many_runs_that_died_and_a_hung_server_delay_a_start_by_seconds(
    stub: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stub.mode = HANG
    for number in range(5):
        kill(stub.uri, tmp_path / "runs" / str(number), uid=f"dead-{number}")
    start = time.monotonic()
    close_what_died(tmp_path / "runs" / "new", tracking_uri=stub.uri)
    seconds = time.monotonic() - start
    assert stub.num_requests > 0
    assert seconds < 8
    record("tracking, hung, 5 runs that died", seconds=round(seconds, 1))


def test_runs_that_died_are_told_to_the_store_that_the_next_one_is_tracked_in(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        kill(database, tmp_path / "runs" / str(number), uid=f"told-{number}")
    with FileLock(tmp_path / "runs" / "1" / LOCK):  # another process goes on with it
        close_what_died(tmp_path / "runs" / "new", tracking_uri=database)
    [run] = runs_of(MlflowClient(database), "told-0")
    assert run.info.status == "KILLED"
    assert json.loads((tmp_path / "runs" / "0" / "result.json").read_text())["run_id"] == run.info.run_id
    assert last_of(tmp_path / "runs" / "1") == []
    assert "told-1" not in capsys.readouterr().out


def test_a_credentials_file_counts_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "credentials"
    monkeypatch.setattr("mlflow.utils.credentials._get_credentials_path", lambda: str(path))
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    require_own_server("http://theirs", source="x", expected="{}")
    path.write_text("[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = hush\n")
    with pytest.raises(
        SettingError, match=r"^x: its server, http://theirs, would be sent your credentials.*expected uri="
    ):
        require_own_server("http://theirs", source="x", expected="uri={}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://theirs/")
    require_own_server("http://theirs", source="x", expected="{}")
    monkeypatch.setenv("PGPASSWORD", "hush")
    with pytest.raises(SettingError, match="would be sent your credentials"):
        require_own_server("postgresql://theirs/db", source="x", expected="{}")


def test_a_run_that_is_gone_on_with_names_no_server_for_the_users_credentials(
    make_member: Callable[..., Member], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_member("tracking=mlflow", "tracking.uri=http://theirs").config
    kill("http://theirs", tmp_path / "run", uid="u")
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    resume = f"resume={tmp_path / 'run'}"
    resumed_job([resume])
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "my-token")
    with pytest.raises(SettingError, match=r"expected tracking\.uri=http://theirs beside resume, if it may have them"):
        resumed_job([resume])
    resumed_job([resume, "tracking.uri=http://theirs"])


def test_a_run_is_looked_for_within_seconds_and_without_telling_the_password(
    stub: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_store, "ANSWER_SECONDS", 1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{PASSWORD}@127.0.0.1:{stub.port}")
    stub.mode = HANG
    start = time.monotonic()
    for find in (folder_of_run, lambda run_id: folder_of(run_id, None)):
        with pytest.raises(SettingError, match=r"http://\*\*\*@127.*: no answer in time") as caught:
            find("0" * 32)
        assert PASSWORD not in str(caught.value)
    assert time.monotonic() - start < 10


def test_a_run_that_is_not_there_is_told_without_the_password(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{PASSWORD}@127.0.0.1:{server.port}")
    with pytest.raises(SettingError, match=r"no such run in http://\*\*\*@127") as caught:
        folder_of_run("0" * 32)
    assert PASSWORD not in str(caught.value)


def test_one_journal_that_cannot_be_delivered_stops_no_other(
    away: str, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, store in (
        ("0", "ftp://x"),
        ("1", away),
        ("2", database),
        ("3", away),
        ("4", "postgresql+psycopg2://x/y"),
    ):
        kill(store, tmp_path / name, uid=f"one-{name}")
    (tmp_path / "fifo").mkdir()
    os.mkfifo(tmp_path / "fifo" / "tracking.jsonl")
    (tmp_path / "locked" / ".tracking.lock").mkdir(parents=True)
    (tmp_path / "locked" / "tracking.jsonl").touch()
    capsys.readouterr()
    assert sync(tmp_path, tracking_uri=None) == 1
    out = capsys.readouterr().out
    assert len(runs_of(MlflowClient(database), "one-2")) == 1
    assert f"{away} cannot be opened: connection refused; 2 of 7 journals are left for later" in out
    for told in ("ftp://x", "fifo/tracking.jsonl: cannot be read", "locked/tracking.jsonl: cannot be delivered"):
        assert told in out


def test_a_database_that_is_away_is_asked_once() -> None:
    pytest.importorskip("psycopg2")
    asked: list[object] = []
    with socketserver.TCPServer(("127.0.0.1", 0), lambda *caller: asked.append(caller)) as away:  # it hangs up
        thread = threading.Thread(target=away.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        where = f"x@127.0.0.1:{away.server_address[1]}/y?sslmode=disable&gssencmode=disable"
        try:
            with pytest.raises(mlflow_store.StoreAway):
                mlflow_store.open_store(f"postgresql+psycopg2://{where}", experiment_name="e")
        finally:
            away.shutdown()
            thread.join()
    assert len(asked) == 1


def test_the_true_error_is_told_where_progress_cannot_be_kept(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kill(database, tmp_path / "run", uid="full")
    (tmp_path / "run" / "tracking.sent").mkdir()
    with (tmp_path / "run" / "tracking.jsonl").open("a") as file:
        file.write('{"kind": "nonsense"}\n')
    assert sync(tmp_path, tracking_uri=None) == 1
    assert "refused 1 of its entries" in capsys.readouterr().out


def test_what_the_store_is_told_is_on_the_disk_before(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    for owner, name in ((Journal, "sync"), (MlflowRun, "send")):
        true = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given, true=true, name=name: (order.append(name), true(*given))[1])
    with make_tracker(database, tmp_path) as tracker:
        tracker.log_metrics({"val/acc": 0.5}, step=1)
        time.sleep(1.5)
        before_the_end = list(order)
    sends = [index for index, name in enumerate(before_the_end) if name == "send"]
    assert len(sends) >= 2
    assert all(before_the_end[index - 1] == "sync" for index in sends)


def test_a_journal_that_made_room_is_delivered_to_its_own_run(
    away: str, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for uid in ("first-in", "second-in"):
        (tmp_path / "result.json").write_text(uid)
        with make_tracker(away, tmp_path, uid=uid) as tracker:
            tracker.log_metrics({"val/acc": 0.5}, step=1)
            tracker.log_file(tmp_path / "result.json")
    assert "what was there is" in capsys.readouterr().out
    assert sync(tmp_path, tracking_uri=database) == 1
    assert "its files are those of the run that has its folder now" in capsys.readouterr().out
    client = MlflowClient(database)
    for uid, files in (("first-in", []), ("second-in", ["result.json"])):
        [run] = runs_of(client, uid)
        assert [file.path for file in client.list_artifacts(run.info.run_id)] == files
        assert run.data.metrics == {"val/acc": 0.5}


@pytest.mark.slow
def test_a_whole_run_goes_on_without_its_server_and_is_delivered_by_the_command(
    server: FaultyServer, client: MlflowClient, tmp_path: Path
) -> None:
    server.mode = HANG
    settings = (
        *SMALL,
        *("backbone.image_size=32", "dataset.train_size=100", "epochs=3", "runtime.device=cpu"),
    )
    where = ("hydra.run.dir=run", f"tracking.uri={server.uri}", f"tracking.experiment_name={EXPERIMENT}")

    def command(program: str, *arguments: str) -> Ended:
        return processes.server().start(*arguments, cwd=tmp_path, logs=tmp_path, program=program).end()

    ended = command("run.py", *settings, *where)
    assert ended.code == 0, ended.err
    assert re.search(r"note: \d+ entries were not delivered to .*; deliver by: tlx sync .*/run\n", ended.out)
    server.mode = PASS
    delivered = command("tlx", "sync", "run")
    assert delivered.code == 0, delivered.err
    uid = re.search(r'"uid": "(\w+)"', (tmp_path / "run" / "result.json").read_text())
    assert uid is not None
    [run] = runs_of(client, uid[1])
    assert run.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "val/acc")] == [1, 2, 3]
    assert {"config.yaml", "model", "result.json"} <= {file.path for file in client.list_artifacts(run.info.run_id)}
