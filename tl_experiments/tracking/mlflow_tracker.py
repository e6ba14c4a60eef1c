"""Records one run in MLflow, through a client of its own: many runs may be open in one process at a time."""

import contextlib
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID

from tl_experiments.runtime.signals import Terminated, shielded
from tl_experiments.tracking.address import absolute_uri
from tl_experiments.tracking.links import LOCAL_UI, charts_link, is_server, sweep_or_run_tags, ui_command
from tl_experiments.tracking.mlflow_store import Store, open_store
from tl_experiments.tracking.params import as_text
from tl_experiments.tracking.tracker import ParamValue

DIGEST_LENGTH = 36  # MLflow's limit for the digest of a dataset
TAG_LENGTH = 500
OF_THE_ATTEMPT = {"tl.error", "tl.nonfinite", "tl.changed_params"}  # tags that another attempt earns anew
MOST_METRICS = 1000  # that MLflow takes at once
FLUSH_SECONDS = 1.0  # metrics of epochs that are shorter are sent together
SUMMARY_STEP = 0  # of metrics that a run has once; epochs count from 1


class MlflowTracker:
    """A run in MLflow, made by `with` and closed with its true status: FINISHED, FAILED or KILLED.

    Its calls are shielded: an exception in the middle of MLflow's transaction would leave the database locked.
    """

    def __init__(
        self,
        *,
        uri: str | None,
        experiment_name: str,
        run_name: str,
        uid: str,
        parent_run_id: str | None,
        tags: Mapping[str, str],
    ) -> None:
        """Keep the settings; the store is touched by `with` alone, but an address that cannot be one is refused here.

        Args:
            uri: address of the store; None is $MLFLOW_TRACKING_URI, else sqlite:///outputs/mlflow.db.
            experiment_name: MLflow experiment, made when it is missing.
            run_name: always passed on, since MLflow's automatic name draws from the global random generator.
            uid: the run's own id, the tag `tl.uid`; a run that has it is continued.
            parent_run_id: MLflow's id of the run that this one belongs to.
            tags: further tags; `tl.sweep_id` makes the links show the whole sweep.

        Raises:
            SettingError: MLflow takes no such address.
        """
        self._uri = absolute_uri(uri)
        self._experiment_name = experiment_name
        self._run_name = run_name
        parent = {MLFLOW_PARENT_RUN_ID: parent_run_id} if parent_run_id else {}
        self._tags = {"tl.kind": "run", **tags, **parent, "tl.uid": uid}
        self._known_params: Mapping[str, str] = {}
        self._known_steps: Mapping[str, int] = {}
        self._nonfinite: set[str] = set()
        self._told_nonfinite: set[str] = set()
        self._points: list[Metric] = []  # not sent yet
        self._flushed = -math.inf  # seconds on the monotonic clock
        self._store: Store | None = None
        self._run_id: str | None = None

    @property
    def run_id(self) -> str | None:
        return self._run_id

    def __enter__(self) -> Self:
        """Open the store, and continue the run or create it.

        Raises:
            SettingError: the store cannot be opened.
        """
        self._store = open_store(self._uri, experiment_name=self._experiment_name)
        with shielded():
            search = f"tags.`tl.uid` = '{self._tags['tl.uid']}'"
            for run in self._store.client.search_runs([self._store.experiment_id], search, max_results=1):
                self._continue(self._store, run)
            if self._run_id is None:
                run = self._store.client.create_run(
                    self._store.experiment_id, run_name=self._run_name, tags=resolve_tags(self._tags)
                )
                self._run_id = run.info.run_id
        return self

    def _continue(self, store: Store, run: Run) -> None:
        """Go on with a run that was stopped: what it holds already is not logged again."""
        self._run_id = run.info.run_id
        self._known_params = run.data.params
        self._known_steps = {
            name: max(point.step for point in store.client.get_metric_history(run.info.run_id, name))
            for name in run.data.metrics
        }
        store.client.update_run(run.info.run_id, status="RUNNING")
        for tag in OF_THE_ATTEMPT & run.data.tags.keys():
            store.client.delete_tag(run.info.run_id, tag)

    @shielded()
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        store, run_id = self._open()
        if error is None:
            self._flush()
            store.client.set_terminated(run_id, "FINISHED")
            return
        with contextlib.suppress(Exception):  # what ended the run matters more than a store that is away
            status = "KILLED" if isinstance(error, KeyboardInterrupt | Terminated) else "FAILED"
            self._flush()
            if status == "FAILED":
                self.set_tags({"tl.error": f"{type(error).__name__}: {error}"[:TAG_LENGTH]})
            store.client.set_terminated(run_id, status)

    @shielded()
    def log_params(self, params: Mapping[str, ParamValue]) -> None:
        store, run_id = self._open()
        texts = {key: as_text(value) for key, value in params.items()}
        new = [Param(key, text) for key, text in texts.items() if key not in self._known_params]
        changed = [key for key, text in texts.items() if self._known_params.get(key, text) != text]
        # MLflow never changes a param, so that a run that goes on elsewhere tells by a tag what is different there.
        tags = [RunTag("tl.changed_params", ", ".join(f"{key}={texts[key]}" for key in changed))] if changed else []
        store.client.log_batch(run_id, params=new, tags=tags)

    @shielded()
    def set_tags(self, tags: Mapping[str, str]) -> None:
        store, run_id = self._open()
        store.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    @shielded()
    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Log all metrics of a step; those that are not finite become the tag `tl.nonfinite` instead.

        MLflow stores an infinity as 1.8e308, which ruins every chart. Epochs that a continued run has already are left
        out, since MLflow would draw them twice.
        """
        now = int(time.time() * 1000)
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        seen = {name for name, last in self._known_steps.items() if SUMMARY_STEP < step <= last}
        self._nonfinite |= metrics.keys() - finite.keys()
        self._points += [Metric(name, float(value), now, step) for name, value in finite.items() if name not in seen]
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        store, run_id = self._open()
        tags = [RunTag("tl.nonfinite", ", ".join(sorted(self._nonfinite)))] if self._nonfinite else []
        points, self._points = self._points, []
        if not points and self._told_nonfinite == self._nonfinite:
            return
        self._told_nonfinite = set(self._nonfinite)
        for start in range(0, max(len(points), 1), MOST_METRICS):
            store.client.log_batch(run_id, metrics=points[start : start + MOST_METRICS], tags=tags)
        self._flushed = time.monotonic()

    @shielded()
    def log_dataset(self, *, name: str, digest: str, context: str, source: str) -> None:
        """Log a data set as the run's input.

        Args:
            name: as the user knows it.
            digest: hex; cut to the length that MLflow keeps.
            context: the part that it plays, such as "train".
            source: where it came from: a folder, or the name of a package.
        """
        store, run_id = self._open()
        dataset = Dataset(name, digest[:DIGEST_LENGTH], "local", json.dumps({"uri": source}))
        store.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, context)])])

    @shielded()
    def log_file(self, path: Path) -> None:
        store, run_id = self._open()
        store.client.log_artifact(run_id, str(path))

    @shielded()
    def log_model(self, folder: Path) -> None:
        """Store the files of `folder` among the run's artifacts, under `model/`.

        A LoggedModel of MLflow would be one more copy of the weights, and the run's Artifacts page does not list it.
        """
        store, run_id = self._open()
        store.client.log_artifacts(run_id, str(folder), "model")

    def ui_command(self) -> str | None:
        store, _ = self._open()
        return ui_command(store.uri)

    def charts_link(self) -> str | None:
        store, _ = self._open()
        server = store.uri if is_server(store.uri) else LOCAL_UI
        return charts_link(store.experiment_id, tags=sweep_or_run_tags(self._tags), server=server)

    def _open(self) -> tuple[Store, str]:
        if self._store is None or self._run_id is None:
            raise RuntimeError("a tracker records inside its `with` block only")
        return self._store, self._run_id
