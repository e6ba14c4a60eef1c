"""One run in MLflow: found by its uid or created, and told what its journal holds; telling twice changes nothing."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_LOGGED_MODELS, MLFLOW_PARENT_RUN_ID

from tl_experiments.runtime.errors import SettingError
from tl_experiments.tracking import journal
from tl_experiments.tracking.journal import Entry, Header, inside
from tl_experiments.tracking.links import is_server
from tl_experiments.tracking.mlflow_store import Store
from tl_experiments.tracking.model_files import write_model_files
from tl_experiments.tracking.storable import storable, storable_values

UID = "tl.uid"
DIGEST_LENGTH = 36  # MLflow's limit for the digest of a dataset
OF_THE_ATTEMPT = ("tl.error", "tl.nonfinite", "tl.changed_params")  # tags that another attempt earns anew
MOST_METRICS, MOST_PARAMS, MOST_TAGS = 1000, 100, 100  # that MLflow takes at once
STATES = ("FINISHED", "FAILED", "KILLED")
BATCHED = (journal.METRICS, journal.PARAMS, journal.TAGS)  # what one call takes together


class MlflowRun:
    """The run of one uid; whoever sends it an entry again, because an answer was lost, changes nothing."""

    def __init__(self, store: Store, header: Header) -> None:
        """Find the run or create it, as one.

        Args:
            store: where.
            header: which run.
        """
        self._store = store
        self._header = header
        run = self._only_one() or self._create()
        self.run_id = run.info.run_id
        self._status = run.info.status
        self._params: dict[str, str] = dict(run.data.params)
        self._tags: dict[str, str] = dict(run.data.tags)
        self.link()

    @property
    def is_linked(self) -> bool:
        """Whether the run that this one belongs to is known to it."""
        return self._header.parent_uid is None or MLFLOW_PARENT_RUN_ID in self._tags

    def link(self) -> None:
        """Say which run this one belongs to, once that is there."""
        if self.is_linked:
            return
        for parent in self._search(str(self._header.parent_uid))[:1]:
            self._store.client.set_tag(self.run_id, MLFLOW_PARENT_RUN_ID, parent.info.run_id)
            self._tags[MLFLOW_PARENT_RUN_ID] = parent.info.run_id

    def is_double(self) -> bool:
        """Whether an older run has the same uid, made by a call whose answer was lost; then this one is deleted."""
        found = self._only_one()
        return found is not None and found.info.run_id != self.run_id

    def _only_one(self) -> Run | None:
        """Return the oldest run of the uid, and delete all others."""
        runs = self._search(self._header.uid)
        for other in runs[1:]:
            self._store.client.delete_run(other.info.run_id)
        return runs[0] if runs else None

    def _search(self, uid: str) -> list[Run]:
        """Return the runs of a uid, the oldest first."""
        found = self._store.client.search_runs([self._store.experiment_id], f"tags.`{UID}` = '{uid}'", max_results=100)
        return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))

    def _create(self) -> Run:
        run = self._store.client.create_run(
            self._store.experiment_id,
            start_time=self._header.time,
            run_name=storable(self._header.run_name),
            tags={**storable_values(self._header.tags), UID: self._header.uid},
        )
        if not run.info.run_id:
            raise MlflowException("the answer names no run, so that no tracking server of MLflow gave it")
        return run

    def send(self, entries: Sequence[Entry]) -> None:
        """Tell the run some entries, all of which one call takes, or a single one.

        Raises:
            ValueError: an entry cannot be delivered, now or later.
            Exception: what MLflow raises.
        """
        first = entries[0]
        try:
            if first["kind"] in BATCHED:
                self._log(entries)
            else:
                _SENDERS[first["kind"]](self, first)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a {first['kind']} entry of the journal is malformed: {error!r}") from error

    def _log(self, entries: Sequence[Entry]) -> None:
        metrics: list[Metric] = []
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        for entry in entries:
            if entry["kind"] == journal.METRICS:
                points = entry["values"].items()
                metrics += [Metric(name, value, entry["time"], entry["step"]) for name, value in points]
                continue
            values = storable_values(entry["values"])
            if entry["kind"] == journal.TAGS:
                tags |= values
            else:
                known = {**params, **self._params}
                params |= {key: text for key, text in values.items() if key not in known}
                # MLflow never changes a param, so that a run that goes on elsewhere tells by a tag what is different.
                changed = [f"{key}={text}" for key, text in values.items() if known.get(key, text) != text]
                tags |= {"tl.changed_params": ", ".join(changed)} if changed else {}
        for points, some_params, some_tags in _portions(metrics, list(params.items()), list(tags.items())):
            self._store.client.log_batch(
                self.run_id,
                metrics=points,
                params=[Param(*item) for item in some_params],
                tags=[RunTag(*item) for item in some_tags],
            )
        self._params |= params
        self._tags |= tags
        self._confirm(metrics=metrics, params=params, tags=tags)

    def _begin(self, _: Entry) -> None:
        """Another attempt: the run goes on, and what the last one said of its end is taken back."""
        if self._status != "RUNNING":
            self._store.client.update_run(self.run_id, status="RUNNING")
            self._status = "RUNNING"
        for tag in OF_THE_ATTEMPT:
            if tag in self._tags:
                try:
                    self._store.client.delete_tag(self.run_id, tag)
                except MlflowException as error:
                    if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):  # it is gone already
                        raise
                del self._tags[tag]
        self._confirm(status="RUNNING")

    def _end(self, entry: Entry) -> None:
        status = entry["status"]
        if status not in STATES:
            raise ValueError(f"{status} is not how a run ends")
        self.link()
        self._store.client.set_terminated(self.run_id, status, end_time=int(entry["time"]))
        self._status = status
        self._confirm(status=status)

    def _dataset(self, entry: Entry) -> None:
        source = json.dumps({"uri": storable(entry["source"])})
        dataset = Dataset(storable(entry["name"]), entry["digest"][:DIGEST_LENGTH], "local", source)
        inputs = [DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, entry["context"])])]
        self._store.client.log_inputs(self.run_id, inputs)
        self._confirm()

    def send_file(self, folder: Path, entry: Entry) -> None:
        """Store a file of the run's folder as an artifact, or a model's folder with what makes it one of MLflow's.

        A LoggedModel of MLflow would be one more copy of the weights, and the run's Artifacts page does not list it.

        Raises:
            ValueError: it is not there any more, leads out of the folder, or is no model.
        """
        path = inside(folder, str(entry.get("path")))
        is_model = entry["kind"] == journal.MODEL
        if not (path.is_dir() if is_model else path.is_file()):
            raise ValueError(f"{entry['path']} is not there any more")
        if is_model:
            self._send_model(folder, path)
        else:
            self._store.client.log_artifact(self.run_id, str(path))
        self._confirm()

    def _send_model(self, folder: Path, model: Path) -> None:
        place = model.name
        for file in sorted(model.iterdir()):
            if inside(folder, file.relative_to(folder).as_posix()).is_file():
                self._store.client.log_artifact(self.run_id, str(file), place)
        with TemporaryDirectory() as made:
            try:
                said = write_model_files(
                    model,
                    Path(made),
                    artifact_path=place,
                    run_id=self.run_id,
                    uid=self._header.uid,
                    time=self._header.time,
                )
            except SettingError as error:
                raise ValueError(str(error)) from error
            self._store.client.log_artifacts(self.run_id, made, place)
        self._store.client.set_tag(self.run_id, MLFLOW_LOGGED_MODELS, json.dumps([said.get_tags_dict()]))

    def _confirm(
        self,
        *,
        metrics: Sequence[Metric] = (),
        params: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
        status: str | None = None,
    ) -> None:
        """Read back what a server was told: to a client of MLflow any answer with an object in it looks like a yes."""
        if not is_server(self._store.uri):
            return
        run = self._store.client.get_run(self.run_id)
        last = {point.key: point.step for point in run.data.to_proto().metrics}
        taken = (
            run.info.run_id == self.run_id
            and all(point.key in last and last[point.key] >= point.step for point in metrics)
            and (params or {}).keys() <= run.data.params.keys()
            and (tags or {}).keys() <= run.data.tags.keys()
            and status in (None, run.info.status)
        )
        if not taken:
            raise MlflowException("the server said yes to what it did not keep")


_SENDERS: dict[str, Any] = {
    journal.BEGIN: MlflowRun._begin,
    journal.DATASET: MlflowRun._dataset,
    journal.END: MlflowRun._end,
}


def _portions(metrics: list[Any], params: list[Any], tags: list[Any]) -> Iterator[tuple[list[Any], ...]]:
    """Yield as much at a time as MLflow takes."""
    while metrics or params or tags:
        yield metrics[:MOST_METRICS], params[:MOST_PARAMS], tags[:MOST_TAGS]
        metrics, params, tags = metrics[MOST_METRICS:], params[MOST_PARAMS:], tags[MOST_TAGS:]
