"""What is said for runs whose process is gone: in their own folders always, and to the caller's own store, soon."""

import json
import shlex
from collections.abc import Collection
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tl_experiments.runtime.errors import DataError, RunFailed, SettingError
from tl_experiments.runtime.files import publish_text
from tl_experiments.runtime.run_lock import alone_in
from tl_experiments.tracking import journal
from tl_experiments.tracking.address import absolute_uri, shown
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.journal import Journal

SECONDS = 5.0  # that what starts may wait for all of it


@dataclass
class Ended:
    """A journal that was ended here, and the result that is to name its tracked run."""

    journal: Journal
    result: dict[str, Any] | None = None


class LastWords:
    """Ends runs in their folders; `with` keeps these locked, and tells the store of all of them together at its end."""

    def __init__(self, *, own: Collection[str], console: Console) -> None:
        """Keep who is told.

        Args:
            own: addresses of stores that the user names now; what else a file names is sent nothing.
            console: told of what is not delivered.
        """
        self._own = own
        self._console = console
        self._ended: list[Ended] = []
        self._held = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._held:
            if error is None:
                self._deliver()

    def hold(self, folder: Path) -> bool:
        """Keep every process from running the run in a folder, until all is told; False where one runs it now."""
        return self.enter(alone_in(folder, seconds=0), unless=RunFailed)

    def enter(self, claim: AbstractContextManager[None], *, unless: type[Exception]) -> bool:
        """Enter what is held until all is told; False where another process has it, as an error of this type says."""
        try:
            self._held.enter_context(claim)
        except unless:
            return False
        return True

    def end(
        self, folder: Path, *, uid: str, status: str, error: str | None = None, result: dict[str, Any] | None = None
    ) -> None:
        """Write the end of a run into its journal, where one is open, and its result where there is none.

        Args:
            folder: of the run, held.
            uid: of the run; what is there of another one is left alone.
            status: how it ended.
            error: why.
            result: to be written as `result.json`, with the id of the tracked run where that is known.

        Raises:
            SettingError: another process has the journal.
        """
        ended = self._journal(folder, uid=uid)
        if ended is not None:
            if status == "FINISHED":
                ended.append_path(journal.DATA_FILE, folder / "result.json")
            ended.append(journal.END, status=status, error=error, time=journal.now())
            ended.sync()
            self._ended.append(Ended(ended, result))
        if result is not None:
            _write(result, folder, run_id=journal.known_run_id(folder, uid=uid))

    def _journal(self, folder: Path, *, uid: str) -> Journal | None:
        """Return the open journal of a run, to go on with; None where nothing is tracked, or it has ended."""
        with suppress(DataError):
            if journal.is_open(folder) and (header := Journal.read(folder).header).uid == uid:
                return self._held.enter_context(Journal.continued(folder, header, seconds=0))
        return None

    def _deliver(self) -> None:
        by_store: dict[str | None, list[Ended]] = {}
        for ended in self._ended:
            by_store.setdefault(ended.journal.header.store, []).append(ended)
        for store, of_one in by_store.items():
            address = store or _secret_address()
            if address is not None and address in self._own:
                self._tell(address, of_one)
            else:
                self._leave(of_one, f"are told to {shown(store) if store else 'their store'} by")

    def _tell(self, address: str, of_one: list[Ended]) -> None:
        from tl_experiments.tracking.delivery import Delivery  # noqa: PLC0415 - MLflow is slow to import
        from tl_experiments.tracking.uploader import Uploader  # noqa: PLC0415

        deliveries = [Delivery(ended.journal, address=address) for ended in of_one]
        Uploader(address).deliver(deliveries, seconds=SECONDS)
        for ended, delivery in zip(of_one, deliveries, strict=True):
            with suppress(OSError):
                delivery.remember()
            if delivery.run is not None and ended.result is not None:
                _write(ended.result, ended.journal.folder, run_id=delivery.run.run_id)
        left = [ended for ended, delivery in zip(of_one, deliveries, strict=True) if delivery.num_missing]
        if left:
            self._leave(left, f"could not be told to {shown(address)}; deliver by")

    def _leave(self, left: list[Ended], how: str) -> None:
        folders = " ".join(shlex.quote(str(ended.journal.folder)) for ended in left[:1])
        which = folders if len(left) == 1 else f"{len(left)} runs, such as {folders},"
        self._console.notice(f"note: the last words of {which} {how}: tlx sync {folders}")


def own_stores(uri: str | None) -> set[str]:
    """Return the addresses that the user names: `uri`, that of the environment, or the default."""
    own = set()
    for named in (uri, None):
        with suppress(SettingError):
            own.add(absolute_uri(named))
    return own


def _secret_address() -> str | None:
    """Return the address that only the environment may say."""
    with suppress(SettingError):
        return absolute_uri(None)
    return None


def _write(result: dict[str, Any], folder: Path, *, run_id: str | None) -> None:
    publish_text(folder / "result.json", json.dumps({**result, "run_id": run_id}, indent=2) + "\n")
