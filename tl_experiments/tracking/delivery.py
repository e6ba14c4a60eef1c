"""A journal on its way to a store: what is sent, what is left, and what the store will never take."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode

from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.files import publish_text
from tl_experiments.tracking import journal
from tl_experiments.tracking.address import shown
from tl_experiments.tracking.journal import Entry, Journal
from tl_experiments.tracking.mlflow_run import BATCHED, MlflowRun
from tl_experiments.tracking.mlflow_store import Store, one_line

MOST_TOGETHER = 200  # entries that are looked at for one call
MOST_POINTS = 1000
REFUSALS = (400, 413, 414, 415, 422)  # of HTTP, about this very file
FILES = (journal.DATA_FILE, journal.MODEL)


class Delivery:
    """Sends a journal's entries in order. A file that cannot be stored is left for later and holds nothing else up."""

    def __init__(self, source: Journal, *, address: str) -> None:
        """Keep what is to be sent.

        Args:
            source: of the entries; more may come.
            address: of the store.
        """
        self.journal = source
        self.run: MlflowRun | None = None
        self.store: Store | None = None
        self.refused: list[str] = []  # why, for each entry that the store will never take
        self.is_starting = self.is_ending = False  # whether its run waits for it now
        self.fault: SettingError | None = None  # why it can never begin
        self.sent_at = 0.0  # on the monotonic clock
        self._place = shown(address)
        self._position = 0
        self.num_sent = 0  # by this delivery
        self._left: list[int] = []  # indices of files that could not be stored yet
        self._again: list[int] = []  # of them, those that are due

    @property
    def has_begun(self) -> bool:
        """Whether the run is there and knows the first entries."""
        return self.run is not None and (self._position > 0 or not self.journal.entries)

    @property
    def is_due(self) -> bool:
        """Whether there is something to send."""
        return self.run is None or self._position < len(self.journal.entries) or bool(self._again)

    @property
    def num_missing(self) -> int:
        """Entries that the store lacks."""
        return len(self.journal.entries) - self._position + len(self._left)

    def step(self, store: Store) -> None:
        """Open the run if that was not done, and send what comes next.

        Raises:
            Exception: what the store raises; the same is sent again then.
        """
        if self.run is None:
            self._open(store)
        try:
            self._send_next(store)
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                self.run = None  # the store was made anew: the run is, too
            raise

    def _open(self, store: Store) -> None:
        run = MlflowRun(store, self.journal.header)
        sent = self._sent()
        is_known = sent.get("run_id") == run.run_id and self._position == 0
        if is_known:
            self._position = min(int(sent["entries"]), len(self.journal.entries))
            self._again = [index for index in sent["left"] if 0 <= index < self._position]
            self._left = list(self._again)
        elif self.store is not None:  # another run than before
            self._position, self._left, self._again = 0, [], []
        self.run, self.store = run, store

    def _send_next(self, store: Store) -> None:
        assert self.run is not None
        if self._again:
            self._send_file(self._again[0])
            self._left.remove(self._again.pop(0))
            self.num_sent += 1
            return
        entries = self._next()
        if not entries:
            return
        self.journal.sync()  # a power cut must not take back what the store has: the run would send it once more
        if entries[0]["kind"] in FILES:
            self._try_file(self._position)
        elif entries[0]["kind"] == journal.UNREADABLE:
            self.refused.append("a line of the journal is spoilt")
        else:
            if entries[0]["kind"] == journal.END and self.run.is_double():
                self._open(store)  # a call that seemed lost had made the run already; it is told everything
                return
            self._send(entries)
        self._position += len(entries)
        self.num_sent += len(entries)

    def link(self) -> None:
        """Say once more which run this one belongs to, if that was not there before."""
        if self.run is not None:
            self.run.link()

    def _send(self, entries: Sequence[Entry]) -> None:
        """Send entries together; where they are refused, each by itself, so that one costs no other."""
        assert self.run is not None
        try:
            self.run.send(entries)
        except Exception as error:
            if not _is_refusal(error):
                raise
            if len(entries) == 1:
                self.refused.append(one_line(error, self._place))
                return
            for entry in entries:
                self._send([entry])

    def _try_file(self, index: int) -> None:
        """Store a file; where only that fails, while the server answers, it is left for a later delivery."""
        try:
            self._send_file(index)
        except Exception:
            assert self.run is not None
            assert self.store is not None
            self.store.client.get_run(self.run.run_id)  # raises where it is the store that is away
            self._left.append(index)

    def _send_file(self, index: int) -> None:
        assert self.run is not None
        if self.journal.path.name != journal.FILE:  # set aside
            self.refused.append("its files are those of the run that has its folder now")
            return
        try:
            self.run.send_file(self.journal.folder, self.journal.entries[index])
        except Exception as error:
            if not _is_refusal(error):
                raise
            self.refused.append(one_line(error, self._place))

    def _next(self) -> Sequence[Entry]:
        """Return the entries that one call takes together, or the next one."""
        entries = self.journal.entries[self._position : self._position + MOST_TOGETHER]
        together: list[Entry] = []
        points = 0
        for entry in entries:
            points += len(entry["values"]) if entry["kind"] == journal.METRICS else 0
            if entry["kind"] not in BATCHED or points > MOST_POINTS:
                break
            together.append(entry)
        return together or entries[:1]

    def is_done_by_record(self) -> bool:
        """Whether an earlier delivery to the same store has sent everything; the store is not asked."""
        sent = self._sent()
        whole = {"uid": self.journal.header.uid, "entries": len(self.journal.entries)}
        everything = {**whole, "store": self._place, "left": [], "linked": True}
        return everything.items() <= sent.items()

    def remember(self) -> None:
        """Keep how far this came, so that a later delivery is quick; one that does not know sends all again."""
        if self.run is None or self.journal.fault is not None:
            return
        sent = {
            "uid": self.journal.header.uid,
            "store": self._place,
            "run_id": self.run.run_id,
            "entries": self._position,
            "left": self._left,
            "linked": self.run.is_linked,
        }
        publish_text(self._sent_path, json.dumps(sent) + "\n")

    @property
    def _sent_path(self) -> Path:
        return self.journal.path.with_suffix(".sent")

    def _sent(self) -> dict[str, Any]:
        try:
            sent = json.loads(self._sent_path.read_text(encoding="utf-8"))
            left = sent["left"]
            whole = isinstance(sent["entries"], int) and all(isinstance(index, int) for index in left)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}
        return sent if whole else {}


def _is_refusal(error: Exception) -> bool:
    """Whether it is the entry that is wrong, not the store."""
    if isinstance(error, MlflowException):
        return error.error_code == ErrorCode.Name(INVALID_PARAMETER_VALUE)
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status in REFUSALS or type(error) is ValueError
