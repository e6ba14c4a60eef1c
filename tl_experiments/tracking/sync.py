"""`tlx sync PATH`: deliver what the store could not be told while runs went on; telling twice changes nothing."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from tl_experiments.runtime.errors import DataError, SettingError
from tl_experiments.tracking import journal
from tl_experiments.tracking.address import VARIABLE, require_own_server, shown, usable_uri
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.delivery import Delivery
from tl_experiments.tracking.journal import Journal, JournalBusy
from tl_experiments.tracking.mlflow_store import Store, StoreAway, one_line, open_store, refused_access
from tl_experiments.tracking.patience import LONGEST, limited

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
    found = sorted(_journals(path), key=lambda file: (len(file.parts), file))  # a sweep before its jobs
    if not found:
        raise SettingError(
            f"{path}: there is no {journal.FILE} in it or below; expected the folder of a tracked run or sweep, "
            "or a folder of such folders"
        )
    console, post = Console(), _Post(tracking_uri)
    report = console.work(f"delivering {len(found)} journal{'s' if len(found) > 1 else ''}")
    lines: list[str] = []
    with limited(LONGEST):
        for number, file in enumerate(found):
            lines += post.tell(file)
            report(number + 1, len(found))
    lines += [
        f"{error}; {count} of {len(found)} journals are left for later" for error, count in post.away.values() if count
    ]
    for line in dict.fromkeys(lines):
        console.notice(line)
    if post.addresses:
        where = ", ".join(sorted(shown(address) for address in post.addresses))
        console.notice(f"{post.num_sent} entries of {len(found)} journals delivered to {where}")
    return 1 if lines else 0


class _Post:
    """Delivers one journal after the other; a store is opened once."""

    def __init__(self, tracking_uri: str | None) -> None:
        self._uri = usable_uri(tracking_uri, source="--tracking-uri") if tracking_uri else None
        self._stores: dict[tuple[str, str], Store] = {}
        self.num_sent = 0
        self.addresses: set[str] = set()
        self.away: dict[str, tuple[StoreAway, int]] = {}  # address -> why, and how many journals wait for it

    def tell(self, file: Path) -> list[str]:
        """Deliver a journal; returns what went wrong. Whatever it is, the others are delivered all the same."""
        folder = file.parent
        try:
            left, refused = self._deliver(file)
        except StoreAway as error:
            told, count = self.away.get(error.address, (error, 0))
            self.away[error.address] = told, count + 1
            return []
        except (JournalBusy, DataError, SettingError) as error:
            return [str(error)]
        except Exception as error:
            return [f"{file}: cannot be delivered: {one_line(error, '')}"]
        lines = [f"{folder}: {left} files could not be stored; the store answers otherwise"] if left else []
        if refused:
            lines.append(f"{folder}: the store refused {len(refused)} of its entries: {refused[0]}")
        return lines

    def _deliver(self, file: Path) -> tuple[int, list[str]]:
        """Deliver a journal; returns how many entries are left, and why the store refused some.

        Raises:
            StoreAway: the store does not answer, or did not before.
            SettingError: it can not be used.
            DataError: it is no journal.
        """
        with journal.alone(file.parent, seconds=0):
            source = Journal.read(file.parent, name=file.name)
            address = self._address(source)
            if address in self.away:
                raise self.away[address][0]
            delivery = Delivery(source, address=address)
            if delivery.is_done_by_record():
                self.addresses.add(address)
                return 0, []
            try:
                while delivery.is_due:
                    self._step(delivery, address)
                delivery.link()
            finally:
                with suppress(OSError):  # it would hide what went wrong; what is not remembered is sent again
                    delivery.remember()
            self.addresses.add(address)
            self.num_sent += delivery.num_sent
            return delivery.num_missing, delivery.refused

    def _step(self, delivery: Delivery, address: str) -> None:
        for tried in range(1, MOST_TRIES + 1):
            start = time.monotonic()
            try:
                delivery.step(self._store(address, delivery.journal.header.experiment_name))
            except Exception as error:
                self._stores.clear()
                if fault := refused_access(error, address):
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
        return self._uri or kept_address(source)


def kept_address(source: Journal) -> str:
    """Return where a journal is to be delivered to; a folder may come from anywhere.

    Raises:
        SettingError: only the environment may say it and does not, or a server would be sent the user's credentials.
    """
    environment = os.environ.get(VARIABLE)
    kept = source.header.store
    if kept is None:
        if environment is None:
            raise SettingError(
                f"{source.folder}: the address of its store holds a password, which is kept nowhere; "
                f"expected it in {VARIABLE} or as --tracking-uri"
            )
        return usable_uri(environment, source=VARIABLE)
    require_own_server(kept, source=source.folder, expected="--tracking-uri {}")
    return usable_uri(kept, source=f"{source.folder / journal.FILE}: store")


def _journals(path: Path) -> Iterator[Path]:
    """Yield the journals, and those that were set aside for another run; links are not followed."""
    for folder, inner, files in os.walk(path):
        inner[:] = [name for name in inner if name not in FOREIGN and not name.startswith(".")]
        for name in files:
            if name == journal.FILE or fnmatch(name, journal.ASIDE):
                yield Path(folder).absolute() / name
