"""tracking.jsonl: everything that the tracking store is to be told, kept beside the run before the store hears of it.

Each line is one entry, written at once. The header makes a folder deliverable by itself, whenever the store is there.
"""

import contextlib
import json
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from filelock import Timeout

from tl_experiments.runtime.errors import DataError, SettingError
from tl_experiments.runtime.folder_lock import held

FILE = "tracking.jsonl"
SENT = "tracking.sent"  # how far it was delivered
ASIDE = "tracking-*.jsonl"  # journals of runs that had the folder before, by their uids
LOCK = ".tracking.lock"
LATEST = 253_402_300_800_000  # the year 10000, in milliseconds since 1970
LOCK_SECONDS = 30  # workers that decode outlive their killed parent for some seconds, and hold what it held
HEADER, BEGIN, PARAMS, TAGS, METRICS, DATASET, DATA_FILE, MODEL, END = (
    "header", "begin", "params", "tags", "metrics", "dataset", "file", "model", "end",
)  # fmt: skip
UNREADABLE = "unreadable"  # a line that the disk has spoilt
SUMMARY_STEP = 0  # of metrics that a run has once; epochs count from 1

Entry = dict[str, Any]


class JournalBusy(SettingError):  # noqa: N818 - it names what happened
    """Another process has the journal."""


@dataclass(frozen=True)
class Header:
    """Which run a journal is about.

    Attributes:
        experiment_name: MLflow experiment.
        run_name: for people.
        uid: of the run.
        parent_uid: of the run that it belongs to.
        tags: with which the run is created.
        store: address; None where only the environment may say it.
        time: in milliseconds since 1970.
    """

    experiment_name: str
    run_name: str
    uid: str
    parent_uid: str | None
    tags: Mapping[str, str]
    store: str | None
    time: int

    @classmethod
    def read(cls, entry: Entry) -> Self:
        """Take a header from a file; raises ValueError where it is none."""
        given: dict[str, Any] = {field.name: entry.get(field.name) for field in fields(cls)}
        texts = [given["experiment_name"], given["run_name"], *given["tags"].keys(), *given["tags"].values()]
        uids = [uid for uid in (given["uid"], given["parent_uid"]) if uid is not None or uid is given["uid"]]
        if not all(isinstance(text, str) for text in texts) or not _is_time(given["time"]):
            raise ValueError("its header has values of a wrong type")
        if not all(isinstance(uid, str) and re.fullmatch(r"[\w.-]{1,100}", uid) for uid in uids):
            raise ValueError("its header names no run")
        return cls(**given)


class Journal:
    """The entries about one run, in order, in memory and in its file; one process at a time writes or delivers them."""

    def __init__(
        self, folder: Path, *, header: Header, entries: list[Entry], is_new: bool = False, name: str = FILE
    ) -> None:
        """Take what a file holds; `continued` and `read` do it.

        Args:
            folder: of the run.
            header: of the file.
            entries: that follow it.
            is_new: nothing was kept of this run before.
            name: of the file.
        """
        self.folder = folder
        self.path = folder / name
        self.aside: Path | None = None  # where that lies which was here before and had to make room
        self.header = header
        self.entries = entries
        self.is_new = is_new
        self.fault: OSError | None = None  # why the file lacks what the memory holds
        self._file: int | None = None
        self._points = {
            (name, entry["step"]): value
            for entry in entries
            if entry["kind"] == METRICS
            for name, value in entry["values"].items()
        }
        self._time = max((entry["time"] for entry in entries if entry["kind"] == METRICS), default=0)

    @classmethod
    @contextlib.contextmanager
    def continued(cls, folder: Path, header: Header, *, seconds: float | None = None) -> Iterator[Self]:
        """Go on with the journal of the same run, or begin it; what else lies there is set aside.

        Args:
            folder: of the run.
            header: of the run.
            seconds: that another process is waited for; None is as long as a dead one's helpers may live.

        Raises:
            JournalBusy: another process writes or delivers it.
            NoLocks: the file system of the folder cannot keep it away.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder, seconds=LOCK_SECONDS if seconds is None else seconds):
            path = folder / FILE
            lines = _whole_lines(path)
            before, entries = _parse(lines) or (None, [])
            is_other = before is None or before.uid != header.uid
            aside, entries = _set_aside(path, lines, uid=header.uid) if is_other else (None, entries)
            journal = cls(folder, header=header, entries=entries, is_new=is_other and not entries)
            journal.aside = aside
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if is_other else 0)
            journal._file = os.open(path, flags, 0o666)
            try:
                if not is_other:
                    # A line that a killed process left half written is taken away.
                    os.ftruncate(journal._file, sum(len(line) + 1 for line in lines))
                if before is None or before.uid != header.uid or before.store != header.store:
                    journal._write({"kind": HEADER, **asdict(header)})
                for entry in entries if is_other else ():
                    journal._write(entry)
                yield journal
            finally:
                os.close(journal._file)
                journal._file = None

    @classmethod
    def read(cls, folder: Path, *, name: str = FILE) -> Self:
        """Return what a journal in a folder holds.

        Raises:
            DataError: it is no journal.
        """
        found = _parse(_whole_lines(folder / name))
        if found is None:
            raise DataError(f"{folder / name}: cannot be read as the journal of a run: its header is missing or spoilt")
        return cls(folder, header=found[0], entries=found[1], name=name)

    def append(self, kind: str, **facts: Any) -> None:
        """Keep an entry; a disk that takes none is told at the end, since the store may still be reached."""
        entry = {"kind": kind, **facts}
        self._write(entry)
        self.entries.append(entry)

    def append_metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Keep the finite values that are new: an epoch that is repeated adds nothing, a summary may be replaced."""
        new = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        known = {name: self._points.get((name, step)) for name in new}
        new = {
            name: value
            for name, value in new.items()
            if known[name] is None or (step == SUMMARY_STEP and known[name] != value)
        }
        if not new:
            return
        self._time = max(now(), self._time + 1)  # the later of two summaries counts, whatever the clock does
        self.append(METRICS, step=step, time=self._time, values=new)
        self._points |= {(name, step): value for name, value in new.items()}

    def append_path(self, kind: str, path: Path) -> None:
        """Keep that a file or folder of the run is to be delivered.

        Raises:
            ValueError: it lies outside of the run's folder.
        """
        self.append(kind, path=path.absolute().relative_to(self.folder.absolute()).as_posix())

    def sync(self) -> None:
        """Have the disk hold what was written."""
        file = self._file
        if file is not None:
            with contextlib.suppress(OSError):
                os.fsync(file)

    def discard(self) -> None:
        """Take back a journal that was begun for a run that cannot begin."""
        with contextlib.suppress(OSError):
            (self.folder / FILE).unlink()

    def _write(self, entry: Entry) -> None:
        """Write an entry as one line in one write, wholly or not at all."""
        if self._file is None:
            raise RuntimeError("a journal that is only read takes no entries")
        line = (json.dumps(entry, allow_nan=False) + "\n").encode()
        try:
            size = os.fstat(self._file).st_size
            if os.write(self._file, line) < len(line):
                os.ftruncate(self._file, size)
                raise OSError("the disk took a part of a line only")
        except OSError as error:
            self.fault = self.fault or error


def is_open(folder: Path) -> bool:
    """Whether there is a journal in a folder that tells of a begin, and of no end after it."""
    return _is_open(_entry(line)["kind"] for line in _whole_lines(folder / FILE))


def _is_open(kinds: Iterable[str]) -> bool:
    known = list(kinds)
    return bool(known) and next((kind for kind in reversed(known) if kind in (BEGIN, END)), BEGIN) == BEGIN


@contextlib.contextmanager
def alone(folder: Path, *, seconds: float) -> Iterator[None]:
    """Keep every other process from writing or delivering a folder's journal.

    Raises:
        JournalBusy: one does it for longer than `seconds`.
        NoLocks: the file system of the folder cannot keep it away.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(folder / LOCK, seconds=seconds))
        except Timeout:
            line = f"{folder / FILE}: another process is writing or delivering it; wait for its end"
            raise JournalBusy(line) from None
        yield


def inside(folder: Path, relative: str) -> Path:
    """Return a path of an entry; what is read back may come from anywhere.

    Raises:
        ValueError: it leads out of the folder.
    """
    path = folder / relative
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{relative} lies outside of the run's folder")
    return path


def now() -> int:
    """Return the time in milliseconds since 1970, as MLflow counts."""
    return time.time_ns() // 1_000_000


def _whole_lines(path: Path) -> list[bytes]:
    """Return the lines that were written to their ends; a FIFO or a device, which may never end, has none."""
    if not path.is_file():
        return []
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []


def _parse(lines: list[bytes]) -> tuple[Header, list[Entry]] | None:
    """Return the last header and the entries; None where there is no header."""
    parsed = [_entry(line) for line in lines]
    headers = [entry for entry in parsed if entry["kind"] == HEADER]
    if not headers or parsed[0]["kind"] != HEADER:
        return None
    try:
        header = Header.read(headers[-1])
    except (ValueError, AttributeError):
        return None
    return header, [entry for entry in parsed if entry["kind"] != HEADER]


def _entry(line: bytes) -> Entry:
    """Return a line as an entry; one that cannot be an entry keeps its place."""
    try:
        entry = json.loads(line, parse_constant=_no_number)
        if entry["kind"] == METRICS:
            whole = _is_time(entry["time"]) and isinstance(entry["step"], int) and abs(entry["step"]) < LATEST
            if not whole or not all(isinstance(value, int | float) for value in entry["values"].values()):
                raise ValueError("a metric is a number")
        return {**entry, "kind": str(entry["kind"])}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {"kind": UNREADABLE}


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number that JSON knows")


def _is_time(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < LATEST


def _set_aside(path: Path, lines: list[bytes], *, uid: str) -> tuple[Path | None, list[Entry]]:
    """Make room for the journal of a run: what another has not delivered, or what is spoilt, gets another name.

    Returns:
        The new name, where there was something to keep, and the entries that are of this run all the same.
    """
    before, parsed = _parse(lines), [_entry(line) for line in lines]
    if before is not None:
        if _is_delivered(path.with_name(SENT), before[0].uid, len(before[1])):
            return None, []
        if _is_open(entry["kind"] for entry in parsed):
            end = {"kind": END, "status": "KILLED", "error": "another run took its folder", "time": now()}
            path.write_bytes(b"".join(line + b"\n" for line in (*lines, json.dumps(end).encode())))
    elif not os.path.lexists(path) or (path.is_file() and not lines):
        return None, []
    aside = path.with_name(f"spoilt-tracking-{now()}.jsonl" if before is None else f"tracking-{before[0].uid}.jsonl")
    path.replace(aside)
    with contextlib.suppress(FileNotFoundError):
        path.with_name(SENT).replace(aside.with_suffix(".sent"))
    uids = {entry.get("uid") for entry in parsed if entry["kind"] in (HEADER, BEGIN)} - {None}
    is_same = before is None and uids == {uid}
    return aside, [entry for entry in parsed if entry["kind"] not in (HEADER, UNREADABLE)] if is_same else []


def _is_delivered(path: Path, uid: str, num_entries: int) -> bool:
    sent = _read_sent(path)
    return sent.get("uid") == uid and sent.get("entries") == num_entries and sent.get("left") == []


def known_run_id(folder: Path, *, uid: str) -> str | None:
    """Return the store's id of a run, as far as an earlier delivery has kept it."""
    sent = _read_sent(folder / SENT)
    run_id = sent.get("run_id") if sent.get("uid") == uid else None
    return run_id if isinstance(run_id, str) else None


def _read_sent(path: Path) -> dict[str, Any]:
    try:
        sent = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return sent if isinstance(sent, dict) else {}
