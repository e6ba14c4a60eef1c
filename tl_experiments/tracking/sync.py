"""`tlx sync PATH`: deliver what the store could not be told while runs went on; telling twice changes nothing."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from tl_experiments.runtime.errors import DataError, SettingError
from tl_experiments.tracking import journal
from tl_experiments.tracking.address import CREDENTIALS, VARIABLE, shown, usable_uri
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.delivery import Delivery
from tl_experiments.tracking.journal import Journal, JournalBusy
from tl_experiments.tracking.links import is_server
from tl_experiments.tracking.mlflow_store import Store, StoreAway, one_line, open_store, refused_credentials
from tl_experiments.tracking.patience import LONGEST, Patience

FOREIGN = {"mlartifacts", "mlruns", "model", "checkpoints"}  # folders that hold no runs
QUICK_SECONDS = 10  # a call that fails sooner is tried again
MOST_TRIES = 3


def sync(path: Path, *, tracking_uri: str | None) -> int:
    """Deliver the journals in a folder and below it, and say what came of it.

    Args:
        path: folder of a run or a sweep, or one of such folders.
        tracking_uri: of the store; None is where each run was to be tracked.

    Returns:
        Exit code: 0 where the store has everything, 1 where something is left.

    Raises:
        SettingError: there is nothing to deliver, or no store that it could be delivered to.
    """
    folders = sorted(_folders(path), key=lambda folder: (len(folder.parts), folder))  # a sweep before its jobs
    if not folders:
        raise SettingError(
            f"{path}: there is no {journal.FILE} in it or below; expected the folder of a tracked run or sweep, "
            "or a folder of such folders"
        )
    console, post = Console(), _Post(tracking_uri)
    report = console.work(f"delivering {len(folders)} journal{'s' if len(folders) > 1 else ''}")
    lines: list[str] = []
    for number, folder in enumerate(folders):
        try:
            left, refused = post.deliver(folder)
        except StoreAway as error:
            report(len(folders), len(folders))
            console.notice(f"{error}; {len(folders) - number} of {len(folders)} journals are left for later")
            return 1
        except (JournalBusy, DataError) as error:
            lines.append(str(error))
        else:
            if left:
                lines.append(f"{folder}: {left} files could not be stored; the store answers otherwise")
            if refused:
                lines.append(f"{folder}: the store refused {len(refused)} of its entries: {refused[0]}")
        report(number + 1, len(folders))
    for line in lines:
        console.notice(line)
    where = ", ".join(sorted(shown(address) for address in post.addresses))
    console.notice(f"{post.num_sent} entries of {len(folders)} journals delivered to {where}")
    return 1 if lines else 0


class _Post:
    """Delivers one journal after the other; a store is opened once."""

    def __init__(self, tracking_uri: str | None) -> None:
        self._uri = usable_uri(tracking_uri, source="--tracking-uri") if tracking_uri else None
        self._stores: dict[tuple[str, str], Store] = {}
        self._patience = Patience(timeout=LONGEST)
        self.num_sent = 0
        self.addresses: set[str] = set()

    def deliver(self, folder: Path) -> tuple[int, list[str]]:
        """Deliver a journal; returns how many entries are left, and why the store refused some.

        Raises:
            StoreAway: the store does not answer.
            SettingError: it can not be used.
            DataError: it is no journal.
        """
        with journal.alone(folder, seconds=0):
            source = Journal.read(folder)
            address = self._address(source)
            self.addresses.add(address)
            delivery = Delivery(source, address=address)
            if delivery.is_done_by_record():
                return 0, []
            try:
                while delivery.is_due:
                    self._step(delivery, address)
                delivery.link()
            finally:
                delivery.remember()
            self.num_sent += delivery.num_sent
            return delivery.num_missing, delivery.refused

    def _step(self, delivery: Delivery, address: str) -> None:
        for tried in range(1, MOST_TRIES + 1):
            self._patience.apply()
            start = time.monotonic()
            try:
                delivery.step(self._store(address, delivery.journal.header.experiment_name))
            except Exception as error:
                self._stores.clear()
                if fault := refused_credentials(error, address):
                    raise fault from None
                if isinstance(error, SettingError) and not isinstance(error, StoreAway):
                    raise
                if tried == MOST_TRIES or time.monotonic() - start > QUICK_SECONDS:
                    raise StoreAway(address, one_line(error, address)) from None
                time.sleep(tried)
            else:
                return

    def _store(self, address: str, experiment_name: str) -> Store:
        key = (address, experiment_name)
        if key not in self._stores:
            self._stores[key] = open_store(address, experiment_name=experiment_name)
        return self._stores[key]

    def _address(self, source: Journal) -> str:
        """Return where a journal is to be delivered to; a folder may come from anywhere."""
        if self._uri is not None:
            return self._uri
        environment = os.environ.get(VARIABLE)
        kept = source.header.store
        if kept is None:
            if environment is None:
                raise SettingError(
                    f"{source.folder}: the address of its store holds a password, which is kept nowhere; "
                    f"expected it in {VARIABLE} or as --tracking-uri"
                )
            return usable_uri(environment, source=VARIABLE)
        has_credentials = any(os.environ.get(name) for name in CREDENTIALS)
        if is_server(kept) and has_credentials and kept != environment:
            raise SettingError(
                f"{source.folder}: its server, {shown(kept)}, would be sent the credentials of MLFLOW_TRACKING_...; "
                f"expected --tracking-uri {shown(kept)}, if it may have them"
            )
        return usable_uri(kept, source=f"{source.folder / journal.FILE}: store")


def _folders(path: Path) -> Iterator[Path]:
    """Yield the folders that have a journal; links are not followed."""
    for folder, inner, files in os.walk(path):
        inner[:] = [name for name in inner if name not in FOREIGN and not name.startswith(".")]
        if journal.FILE in files:
            yield Path(folder).absolute()
