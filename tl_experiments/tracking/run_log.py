"""One run's record: its files, which are the local truth, and its tracker, written side by side."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tl_experiments.data.bad_images import keep_list
from tl_experiments.data.dataset_images import DatasetImages
from tl_experiments.data.images import Images
from tl_experiments.engine.lr_finder import RangeTest
from tl_experiments.engine.records import Diverged, EpochRecord, FinalRecord, Record, Stopped
from tl_experiments.engine.training_plan import TrainingPlan
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.files import publish_text, remove_folder, remove_unfinished
from tl_experiments.runtime.fingerprint import git_commit, versions
from tl_experiments.runtime.process import machine
from tl_experiments.runtime.signals import Terminated, shielded
from tl_experiments.tracking import journal
from tl_experiments.tracking.evaluation_files import FILES, write_evaluation
from tl_experiments.tracking.metrics_log import append_metrics, best_epoch, keep_epochs, read_metrics
from tl_experiments.tracking.named_run import MODEL
from tl_experiments.tracking.params import run_params
from tl_experiments.tracking.pictures import learning_curves, save_picture
from tl_experiments.tracking.plan_table import write_plan
from tl_experiments.tracking.rate_picture import CURVE, read_range, write_range
from tl_experiments.tracking.run_record import CONFIG, RunRecord
from tl_experiments.tracking.tags import config_digest, run_fingerprint, run_tags
from tl_experiments.tracking.tracker import Tracker

CURVES = "learning_curves.png"


@dataclass(frozen=True)
class RunResult:
    """How one run ended.

    Attributes:
        name: of the run.
        folder: of its files.
        summary: the metrics of the best epoch and, unless it was pruned, of the test split.
        weights_sha256: digest of the deployable at the best epoch; None of a run that was pruned.
        ui_command: that opens the tracking pages; None where there are none to open.
        charts_link: to the run's charts; None where it is not tracked.
    """

    name: str
    folder: Path
    summary: Mapping[str, float]
    weights_sha256: str | None
    ui_command: str | None
    charts_link: str | None

    @property
    def val_acc_best(self) -> float:
        return self.summary.get("val/acc_best", math.nan)


class RunLog:
    """Writes one member's record; `with` begins the tracker's run and ends both with the same status."""

    def __init__(
        self,
        *,
        record: RunRecord,
        folder: Path,
        member: int,
        num_members: int,
        tracker: Tracker,
        changed: Sequence[str] = (),
    ) -> None:
        """Keep where to write.

        Args:
            record: what the run is called.
            folder: exists.
            member: index on the leading axis of records.
            num_members: on this axis; they share the time that they take together.
            tracker: not yet entered.
            changed: a line for each value that the run goes on with and did not begin with.
        """
        self.tracker = tracker
        self._changed = changed
        self.name = record.name
        self.uid = record.uid
        self.folder = folder
        self._record = record
        self._member = member
        self._num_members = num_members
        self._start = time.perf_counter()
        self._config: Mapping[str, Any] = {}
        self._device, self._num_processes = "", 1
        self._dataset = self._test = self._weights = ""
        self._num_train_images = 0
        self._identity: Mapping[str, Any] = {}
        self._rows: list[Mapping[str, Any]] = []  # of metrics.jsonl, not written yet
        self._num_epochs = 0
        self._final: FinalRecord | None = None
        self.failure: str | None = None  # of this member alone, while others went on
        self._stopped: Stopped | None = None  # before its last epoch; others of its process may go on
        self._ended = False
        self._has_share = False
        self._together_seconds: float | None = None  # until the members were tested

    def __enter__(self) -> Self:
        """Begin the tracker's run; the files say what the run is before that, so that it can be told if it dies."""
        try:
            self.tracker.__enter__()
        except BaseException as error:
            self._ended = True
            self._write_end(error)
            raise
        self.tracker.log_params(run_params(self._config, self._record.choices))
        self.tracker.log_file(self.folder / CONFIG)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._ended:
            return
        self._ended = True
        if error is not None:
            self._write_end(error)
        self.tracker.__exit__(kind, error, traceback)

    def _write_end(self, error: BaseException) -> None:
        """Write how the run ended; a disk that takes nothing hides no error."""
        self._take_share()
        status = "KILLED" if isinstance(error, KeyboardInterrupt | Terminated) else "FAILED"
        with suppress(OSError):
            self._write_result(status=status, error=f"{type(error).__name__}: {error}")

    def begin(self, config: Mapping[str, Any], *, device: str, num_processes: int) -> None:
        """Write what the run is, before it is entered; of one that goes on it is written already.

        Args:
            config: resolved, plain values.
            device: as people call it.
            num_processes: that train it together.
        """
        self._config, self._device, self._num_processes = config, device, num_processes
        remove_unfinished(self.folder)
        (self.folder / "result.json").unlink(missing_ok=True)  # of an earlier run in the same folder, or an attempt
        if not self._record.is_saved(self.folder):
            self._remove_others()
            publish_text(self.folder / CONFIG, yaml.safe_dump(dict(config), sort_keys=False))
            self._record.save(self.folder)

    def _remove_others(self) -> None:
        """Remove what an earlier run has left in the folder, which would be taken for this one's."""
        remove_folder(self.folder / MODEL)
        for name in (CURVE, CURVES, *FILES):
            (self.folder / name).unlink(missing_ok=True)

    def dataset(self, *, name: str, source: str, images: DatasetImages) -> None:
        """Record what the run learns from, and which images were left out.

        Args:
            name: of the dataset.
            source: a folder, or the name where there is none.
            images: of all splits.
        """
        self._dataset, self._num_train_images = images.fingerprint, len(images.train)
        self._test = images.test.fingerprint
        self.tracker.log_dataset(name=name, digest=images.fingerprint, context="train", source=source)
        for path in keep_list(images.skipped, self.folder):
            self.tracker.log_file(path)

    def go_on(self, *, epochs: int, seconds: float) -> None:
        """Forget what lies behind the point at which the run goes on; a new run goes on after epoch 0.

        Args:
            epochs: that are over.
            seconds: that they took.
        """
        keep_epochs(self.folder / "metrics.jsonl", epochs)
        self._start -= seconds

    @property
    def in_sweep(self) -> bool:
        return self._record.sweep_id is not None

    @property
    def told(self) -> tuple[Path, ...]:
        """The files that are written while the run goes on."""
        return self.folder / "metrics.jsonl", self.folder / journal.FILE

    def write_rows(self) -> None:
        """Write the metrics of epochs that are not written yet.

        Raises:
            OSError: the disk does not take them.
        """
        if self._rows:
            append_metrics(self.folder / "metrics.jsonl", self._rows)
            self._rows = []

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, without those in which it was stopped."""
        return time.perf_counter() - self._start

    @property
    def identity(self) -> dict[str, str]:
        """Digests of what must be the same when the run goes on, by names for people."""
        return {
            "configuration": config_digest(self._config),
            "images": self._dataset,
            "weights to begin with": self._weights,
        }

    def identify(self, *, weights: str, frozen: str, num_trained_params: int) -> None:
        """Tag what the run is, once its weights are known.

        Args:
            weights: digest of the deployable before training.
            frozen: digest of the tensors that must not change.
            num_trained_params: parameters that training changes.
        """
        self._weights = weights
        self._identity = {
            "fingerprint": run_fingerprint(self._config, dataset=self._dataset, weights=weights),
            "dataset_fingerprint": self._dataset,
            "test_fingerprint": self._test,
            "initial_weights_sha256": weights,
            "frozen_sha256": frozen,
            "num_trained_params": num_trained_params,
            "num_train_images": self._num_train_images,
        }
        facts = {key: str(value) for key, value in self._identity.items()}
        tags = run_tags(folder=self.folder, device=self._device, num_processes=self._num_processes, facts=facts)
        self.tracker.set_tags(tags)

    def plan(self, plan: TrainingPlan) -> None:
        """Keep what is going to be trained.

        Args:
            plan: of all members; this one's is written.
        """
        for path in write_plan(self.folder, plan.of_member(self._member)):
            self.tracker.log_file(path)

    @property
    def found_rate(self) -> RangeTest | None:
        """What `lr=auto` came to when the run began; None of one that begins now."""
        return read_range(self.folder)

    def rate(self, found: RangeTest) -> None:
        """Record what `lr=auto` came to; the curve is in the run's folder."""
        self.tracker.log_metrics({"lr_found": found.suggestion}, step=0)
        for path in write_range(found, self.folder):
            self.tracker.log_file(path)

    def record(self, record: Record) -> None:
        """Keep what an epoch or the test showed; steps leave nothing.

        A member that diverged ends here, as failed. One that stopped early has no later epochs, but is tested.
        """
        if self.failure is not None:
            return
        if isinstance(record, Diverged):
            if record.member == self._member:
                self.failure = record.reason
                self.__exit__(RunFailed, RunFailed(record.reason), None)
        elif isinstance(record, Stopped):
            if record.member == self._member:
                self._stopped = record
                self.tracker.set_tags({"tl.stopped_early": str(record.epoch)})
        elif isinstance(record, EpochRecord):
            if self._stopped is not None:
                return
            metrics = record.metrics(self._member)
            self._num_epochs = record.num_epochs
            place = {"epoch": record.epoch, "phase": record.phase, "schedule_epoch": record.schedule_epoch}
            self._rows.append({**place, **metrics})
            self.tracker.log_metrics(metrics, step=record.epoch)
            with suppress(OSError):  # of a disk that is full: the rows are kept, and tried again
                self.write_rows()
        elif isinstance(record, FinalRecord):
            self._final = record
            self._together_seconds = time.perf_counter() - self._start

    @property
    def temperature(self) -> float:
        """By which the best weights' logits are divided to be calibrated; known once the run was tested."""
        return self._tested.scores[self._member].temperature

    @property
    def metrics(self) -> Mapping[str, float]:
        """What the best epoch and the test showed; known once the run was tested."""
        return self._tested.metrics(self._member)

    @property
    def _tested(self) -> FinalRecord:
        if self._final is None:
            raise RuntimeError("a run ends with the record of its test")
        return self._final

    def finish(self, *, weights_sha256: str, images: Images, class_names: Sequence[str]) -> RunResult:
        """Record what the test showed, the model in `model/` and, last of all, the result; the run has ended then.

        Args:
            weights_sha256: digest of the deployable at the best epoch.
            images: of the test split.
            class_names: in label order.
        """
        tested = self._tested
        self._take_share()
        self.write_rows()
        for path in self._draw(tested, images, class_names):
            self.tracker.log_file(path)
        self.tracker.log_model(self.folder / MODEL)
        return self._end("FINISHED", self.metrics, weights_sha256=weights_sha256)

    def prune(self) -> RunResult:
        """Record that a search stopped the run, whose epochs count and which was not tested; it has ended then."""
        self._take_share()
        self.write_rows()
        rows = read_metrics(self.folder / "metrics.jsonl")
        save_picture(learning_curves(rows), self.folder / CURVES)
        self.tracker.log_file(self.folder / CURVES)
        self.tracker.set_tags({"tl.pruned": "true"})  # MLflow knows it as FINISHED: nothing went wrong
        return self._end("PRUNED", best_epoch(rows), weights_sha256=None, num_epochs=self._num_epochs)

    def _end(self, status: str, summary: Mapping[str, float], *, weights_sha256: str | None, **facts: int) -> RunResult:
        summary = {**summary, "perf/seconds": self._seconds()}
        self.tracker.log_metrics(summary, step=0)  # MLflow draws what has no further step as bars
        with shielded():  # a signal that comes now ends no run that has finished
            path = self._write_result(status=status, **summary, **facts, weights_sha256=weights_sha256)
            self._ended = True  # what becomes of other members is nothing to this one
            self.tracker.log_file(path)
        self.tracker.__exit__(None, None, None)
        return RunResult(
            name=self.name,
            folder=self.folder,
            summary=summary,
            weights_sha256=weights_sha256,
            ui_command=self.tracker.ui_command(),
            charts_link=self.tracker.charts_link(),
        )

    def _draw(self, final: FinalRecord, images: Images, class_names: Sequence[str]) -> list[Path]:
        curves = self.folder / CURVES
        save_picture(learning_curves(read_metrics(self.folder / "metrics.jsonl")), curves)
        files = write_evaluation(
            self.folder,
            logits=final.logits[self._member],
            labels=final.labels,
            temperature=self.temperature,
            images=images,
            class_names=class_names,
        )
        return [curves, *files]

    def _take_share(self) -> None:
        """Charge this member, once, its share of the seconds that all took together: until the test, or until now."""
        if self._has_share:
            return
        self._has_share = True
        now = time.perf_counter()
        together = now - self._start if self._together_seconds is None else self._together_seconds
        self._start = now - together / self._num_members

    def _seconds(self) -> float:
        """Seconds since the run began; of what members do together, each is charged its share."""
        return round(time.perf_counter() - self._start, 3)

    def _write_result(self, *, status: str, **fields: Any) -> Path:
        path = self.folder / "result.json"
        ids = {"status": status, "name": self.name, "uid": self.uid, "run_id": self.tracker.run_id}
        where = machine(self._device, num_processes=self._num_processes)
        place = {**where, "git_commit": git_commit(), "versions": versions()}
        changed = {"resumed_with": list(self._changed)} if self._changed else {}
        stopped = {"stopped_early": self._stopped.epoch} if self._stopped else {}  # the last epoch that it trained
        result = {**ids, **fields, **stopped, **self._identity, **changed, "seconds": self._seconds(), **place}
        publish_text(path, json.dumps(result, indent=2) + "\n")
        return path
