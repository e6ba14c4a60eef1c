"""Records one run for MLflow, local first: what is told goes into the run's folder, and from there to the store."""

import contextlib
import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mlflow.tracking.context.registry import resolve_tags

from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.signals import Terminated, shielded
from tl_experiments.tracking import journal
from tl_experiments.tracking.address import VARIABLE, absolute_uri, holds_secret, redacted, shown, without_user
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.delivery import Delivery
from tl_experiments.tracking.journal import Header, Journal
from tl_experiments.tracking.links import LOCAL_UI, charts_link, is_server, sweep_or_run_tags, ui_command
from tl_experiments.tracking.mlflow_run import UID
from tl_experiments.tracking.params import as_text
from tl_experiments.tracking.tracker import ParamValue
from tl_experiments.tracking.uploader import uploader_of

TAG_LENGTH = 500
END_SECONDS = 30.0  # that the end of a run may wait for a store that answers
KILLED_SECONDS = 10.0  # of one that was told to end


class MlflowTracker:
    """A run in MLflow, made by `with` and closed with its true status: FINISHED, FAILED or KILLED.

    Its calls write a line into the run's folder and return; a store that is away costs a run nothing but a notice.
    """

    def __init__(
        self,
        *,
        uri: str | None,
        experiment_name: str,
        run_name: str,
        uid: str,
        parent_uid: str | None,
        folder: Path,
        tags: Mapping[str, str],
    ) -> None:
        """Keep the settings; folder and store are touched by `with` alone, but a wrong address is refused here.

        Args:
            uri: address of the store; None is $MLFLOW_TRACKING_URI, else sqlite:///outputs/mlflow.db.
            experiment_name: MLflow experiment, made when it is missing.
            run_name: always passed on, since MLflow's automatic name draws from the global random generator.
            uid: the run's own id, the tag `tl.uid`; a run that has it is continued.
            parent_uid: of the run that this one belongs to.
            folder: of the run's files; the journal is kept there, and files that are logged lie there.
            tags: further tags; `tl.sweep_id` makes the links show the whole sweep.

        Raises:
            SettingError: MLflow takes no such address, or it was typed with a password.
        """
        self._uri = absolute_uri(uri)
        self._experiment_name = experiment_name
        self._run_name = run_name
        self._uid = uid
        self._parent_uid = parent_uid
        self._folder = folder.absolute()
        self._tags = {"tl.kind": "run", **tags, UID: uid}
        self._nonfinite: set[str] = set()
        self._open: contextlib.ExitStack | None = None
        self._journal: Journal | None = None
        self._delivery: Delivery | None = None

    @property
    def run_id(self) -> str | None:
        run = self._delivery.run if self._delivery else None
        return run.run_id if run else None

    def __enter__(self) -> Self:
        """Begin the journal, or go on with it, and have its delivery begin.

        Raises:
            SettingError: the store cannot be opened, whenever it is tried.
        """
        header = Header(
            experiment_name=self._experiment_name,
            run_name=self._run_name,
            uid=self._uid,
            parent_uid=self._parent_uid,
            tags=resolve_tags(self._tags),
            store=None if holds_secret(self._uri) else self._uri,
            time=journal.now(),
        )
        with contextlib.ExitStack() as stack:
            kept = stack.enter_context(Journal.continued(self._folder, header))
            kept.append(journal.BEGIN, time=journal.now(), uid=self._uid)
            self._delivery = Delivery(kept, address=self._uri)
            try:
                reason = uploader_of(self._uri).begin(self._delivery)
            except BaseException as error:
                if kept.is_new and isinstance(error, SettingError):
                    kept.discard()
                else:
                    kept.append(journal.END, **self._end_of(error))
                raise
            self._journal, self._open = kept, stack.pop_all()
        if kept.aside is not None:
            self._notice(f"{kept.path} was no whole journal of this run: what was there is {_set_aside(kept.aside)}")
        if reason is not None:
            self._notice(
                f"{shown(self._uri)} cannot be reached ({reason}): the run goes on, and {journal.FILE} keeps what the "
                "store is to be told"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep how the run ends, and give its last entries a while to go; no trouble of the store is raised."""
        kept = self._entered()
        assert self._delivery is not None
        assert self._open is not None
        with self._open, _only(error):
            end = self._end_of(error)
            if end["status"] == "FAILED":
                self._append(journal.TAGS, values={"tl.error": end["error"]})
            self._append(journal.END, **end)
            kept.sync()
            seconds = KILLED_SECONDS if end["status"] == "KILLED" else END_SECONDS
            self._journal = None
            try:
                ended = uploader_of(self._uri).end(self._delivery, seconds=seconds)
            except BaseException:  # a signal: nobody wants to wait any more
                self._tell([self._delivery])
                raise
            self._tell(ended)

    def _tell(self, ended: Sequence[Delivery]) -> None:
        """Keep how far journals were delivered, and say what is left of them."""
        store = shown(self._uri)
        for delivery in ended:
            with contextlib.suppress(OSError):
                delivery.remember()
            path = delivery.journal.folder / journal.FILE
            if fault := delivery.journal.fault:
                self._notice(f"{path} lacks entries, as it could not be written to: {fault}")
            if reasons := delivery.refused:
                self._notice(f"{store} refused {_entries(len(reasons))} of {path}: {reasons[0]}")
        missing = {delivery.journal.folder: delivery.num_missing for delivery in ended if delivery.num_missing}
        if missing:
            number, of_all = sum(missing.values()), f" of {len(missing)} runs" if len(missing) > 1 else ""
            command = f"tlx sync {shlex.quote(os.path.commonpath(missing))}"
            was = "was" if number == 1 else "were"
            self._notice(f"{_entries(number)}{of_all} {was} not delivered to {store}; deliver by: {command}")

    def log_params(self, params: Mapping[str, ParamValue]) -> None:
        self._append(journal.PARAMS, values={key: as_text(value) for key, value in params.items()})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._append(journal.TAGS, values=dict(tags))

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Log all metrics of a step; those that are not finite become the tag `tl.nonfinite` instead.

        MLflow stores an infinity as 1.8e308, which ruins every chart.
        """
        kept = self._entered()
        nonfinite = {name for name, value in metrics.items() if not math.isfinite(value)} - self._nonfinite
        with shielded():
            kept.append_metrics(metrics, step=step)
            if nonfinite:
                self._nonfinite |= nonfinite
                kept.append(journal.TAGS, values={"tl.nonfinite": ", ".join(sorted(self._nonfinite))})
            uploader_of(self._uri).wake()

    def log_dataset(self, *, name: str, digest: str, context: str, source: str) -> None:
        """Log a data set as the run's input.

        Args:
            name: as the user knows it.
            digest: hex; cut to the length that MLflow keeps.
            context: the part that it plays, such as "train".
            source: where it came from: a folder, or the name of a package.
        """
        self._append(journal.DATASET, name=name, digest=digest, context=context, source=source)

    def log_file(self, path: Path) -> None:
        self._append_path(journal.DATA_FILE, path)

    def log_model(self, folder: Path) -> None:
        self._append_path(journal.MODEL, folder)

    def ui_command(self) -> str | None:
        if holds_secret(self._uri) and not is_server(self._uri):
            return f'mlflow ui --backend-store-uri "${VARIABLE}"'
        return ui_command(self._uri)

    def charts_link(self) -> str | None:
        store = self._delivery.store if self._delivery else None
        if store is None:
            return None
        server = without_user(self._uri) if is_server(self._uri) else LOCAL_UI
        return charts_link(store.experiment_id, tags=sweep_or_run_tags(self._tags), server=server)

    def _append(self, kind: str, **facts: object) -> None:
        kept = self._entered()
        with shielded():  # a line is written as a whole
            kept.append(kind, **facts)
            uploader_of(self._uri).wake()

    def _append_path(self, kind: str, path: Path) -> None:
        kept = self._entered()
        with shielded():
            kept.append_path(kind, path)
            uploader_of(self._uri).wake()

    def _entered(self) -> Journal:
        if self._journal is None:
            raise RuntimeError("a tracker records inside its `with` block only")
        return self._journal

    def _end_of(self, error: BaseException | None) -> dict[str, Any]:
        """Return how a run ended that this error ended."""
        if error is None:
            return {"status": "FINISHED", "error": None, "time": journal.now()}
        status = "KILLED" if isinstance(error, KeyboardInterrupt | Terminated) else "FAILED"
        text = redacted(f"{type(error).__name__}: {error}", self._uri)[:TAG_LENGTH]
        return {"status": status, "error": text, "time": journal.now()}

    def _notice(self, text: str) -> None:
        Console().notice(f"note: {text}")


@contextlib.contextmanager
def _only(error: BaseException | None) -> Iterator[None]:
    """Let nothing that happens at the end of a run hide what ended it."""
    try:
        yield
    except BaseException:
        if error is None:
            raise


def _set_aside(path: Path) -> str:
    is_whole = path.match(journal.ASIDE)
    return f"{path} now" + (f", which is delivered by: tlx sync {shlex.quote(str(path.parent))}" if is_whole else "")


def _entries(count: int) -> str:
    return f"{count} entr{'y' if count == 1 else 'ies'}"
