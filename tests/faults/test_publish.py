"""Whenever a writer is killed, and whatever the disk refuses: what was saved before, or what is saved now."""

import os
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.injection import Call, Writers, calls, why_not, writers
from tests.faults.scorecard import count, record, skip
from tests.faults.writers import WRITERS
from tl_experiments.runtime.files import disk_fault, remove_unfinished

KILL, FULL, FULL_FOR_GOOD = "kill at every syscall", "disk full at every write", "disk full for good"
NAIVE = "control, naive writers"
PAGE, DISK = 4096, 4 << 20
BEFORE = (0, 3)  # saves that are there: the first one is made, or others make way


@pytest.fixture(scope="module")
def server() -> Iterator[Writers]:
    if reason := why_not():
        record(FULL, skipped=reason)
        skip(KILL, reason)
    with writers() as started:
        yield started


class Tally:
    """Sums of figures over all writers, by row and by what was tried."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)

    def add(self, row: str, tried: str, **figures: int) -> None:
        self.sums[row, tried].update({"writers": 1, **figures})


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    made = Tally()
    yield made
    for (row, tried), figures in made.sums.items():
        record(row, tried=tried, **figures)


def saved(writer: str, folder: Path, *, upto: int) -> Path:
    """Make a folder in which a writer has saved numbers."""
    folder.mkdir(parents=True)
    for number in range(1, upto + 1):
        WRITERS[writer].write(folder, number)
    return folder


def points(server: Writers, writer: str, folder: Path, *, before: int, care: str = "") -> list[Call]:
    """Return the calls of an undisturbed save."""
    trace = folder / "trace"
    here = saved(writer, folder / "undisturbed", upto=before)
    ended = server.write(writer, here, before + 1, care=care, trace=trace)
    assert (ended.code, ended.saved, ended.error) == (0, before + 1, "")
    return calls(trace)


def unharmed(writer: str, folder: Path, *, allowed: tuple[int, ...]) -> bool:
    """Whether all that can be seen is whole and of an allowed number."""
    try:
        return WRITERS[writer].newest(folder) in allowed
    except Exception:
        return False


def survivors(
    server: Writers, writer: str, folder: Path, *, before: int, care: str = ""
) -> Iterator[tuple[Call, Path, bool]]:
    """Kill a save at each of its calls; yield the call, the folder, and whether it is as before or after the save."""
    template = saved(writer, folder / "before", upto=before)
    for number, call in enumerate(points(server, writer, folder, before=before, care=care)):
        here = shutil.copytree(template, folder / str(number))
        assert server.write(writer, here, before + 1, care=care, inject=call.kill).code == -9, call
        yield call, here, unharmed(writer, here, allowed=(before, before + 1))


@pytest.mark.parametrize("writer", WRITERS)
def test_killed_at_any_call_a_save_is_there_or_not(server: Writers, tally: Tally, writer: str, tmp_path: Path) -> None:
    killed, failed = Counter[str](), []
    for before in BEFORE:
        for call, folder, sound in survivors(server, writer, tmp_path / str(before), before=before):
            killed[call.name] += 1
            remove_unfinished(folder)
            next_number = WRITERS[writer].newest(folder) + 1 if sound else 0
            if sound:
                WRITERS[writer].write(folder, next_number)
            if not sound or not unharmed(writer, folder, allowed=(next_number,)):
                failed.append((before, call))
    tally.add(KILL, "publish", points=killed.total(), unloadable=len(failed))
    assert not failed
    assert {"openat", "write", "fsync"} <= killed.keys()


@pytest.mark.parametrize("writer", WRITERS)
def test_the_kills_find_a_naive_writer(server: Writers, tally: Tally, writer: str, tmp_path: Path) -> None:
    found = [sound for _, _, sound in survivors(server, writer, tmp_path, before=3, care="naive")]
    tally.add(KILL, NAIVE, points=len(found), unloadable=found.count(False))
    assert not all(found)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_disk_that_is_full_at_any_call_loses_nothing_and_is_named(
    server: Writers, tally: Tally, writer: str, tmp_path: Path
) -> None:
    tried = named = 0
    failed = []
    for before in BEFORE:
        undisturbed = points(server, writer, tmp_path / str(before), before=before)
        template = saved(writer, tmp_path / str(before) / "before", upto=before)
        for number, call in enumerate(call for call in undisturbed if call.can_be_full):
            folder = shutil.copytree(template, tmp_path / str(before) / str(number))
            ended = server.write(writer, folder, before + 1, inject=call.disk_full)
            allowed = (before, before + 1) if ended.error else (before + 1,)  # the last fsync may be what is refused
            whole = unharmed(writer, folder, allowed=allowed) and not WRITERS[writer].leftovers(folder)
            tried += 1
            named += ended.error.startswith("ENOSPC: No space left on device")
            if ended.code != 0 or not whole or "ENOSPC" not in (ended.error or "ENOSPC"):
                failed.append((before, call, ended))
    tally.add(FULL, "publish", points=tried, lost_or_left_over=len(failed), told_ENOSPC=named)
    assert not failed
    assert named == tried or writer == "ledger", "without a lock a line is added all the same"


def test_a_full_disk_that_is_ignored_is_found(server: Writers, tmp_path: Path) -> None:
    """The naive writers lose on it what they had."""
    lost = []
    for writer in WRITERS:
        undisturbed = points(server, writer, tmp_path / writer, before=3, care="naive")
        template = saved(writer, tmp_path / writer / "before", upto=3)
        for number, call in enumerate(call for call in undisturbed if call.can_be_full):
            folder = shutil.copytree(template, tmp_path / writer / str(number))
            server.write(writer, folder, 4, care="naive", inject=call.disk_full)
            lost.append(not unharmed(writer, folder, allowed=(3, 4)) or bool(WRITERS[writer].leftovers(folder)))
    record(FULL, tried=NAIVE, writers=len(WRITERS), points=len(lost), lost_or_left_over=sum(lost))
    assert any(lost)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    mount = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("mount") else None
    if mount is None or mount.returncode:
        skip(FULL_FOR_GOOD, f"no tmpfs can be mounted: {mount.stderr.strip() if mount else 'there is no mount'}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, *, but: int) -> Path:
    """Take all of a disk but some pages."""
    filler = disk / "filler"
    free = os.statvfs(disk).f_bavail
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - but) * PAGE)
    return filler


def refusal(work: Callable[[], None]) -> str | None:
    """Return what the disk refused; None: nothing."""
    try:
        work()
    except OSError as error:
        return disk_fault(error)
    return None


@pytest.mark.parametrize(
    ("writer", "naive"), [*((writer, False) for writer in WRITERS), ("checkpoint", True), ("cache", True)]
)
def test_a_disk_that_is_really_full_loses_nothing(writer: str, naive: bool, tally: Tally, small_disk: Path) -> None:
    """At every page that a save would need; when there is room again, it is made."""
    write: Callable[[Path, int], None] = WRITERS[writer].naive if naive else WRITERS[writer].write
    errors, harmed, pages = 0, 0, 0
    while pages < DISK // PAGE:
        folder = saved(writer, small_disk / "run", upto=3)
        filler = fill(small_disk, but=pages)
        error = refusal(lambda: write(folder, 4))  # noqa: B023 - it is called at once
        done = error is None
        errors += not done
        assert done or error.startswith("ENOSPC: No space left on device")
        harmed += not unharmed(writer, folder, allowed=(3 + done,)) or bool(WRITERS[writer].leftovers(folder))
        filler.unlink()
        if not done and not naive:
            write(folder, 4)
            assert unharmed(writer, folder, allowed=(4,))
        shutil.rmtree(folder)
        if done:
            break
        pages += count(ordinary=5, full=1)
    assert errors
    tally.add(FULL_FOR_GOOD, NAIVE if naive else "publish", disks=errors, lost_or_left_over=harmed)
    assert bool(harmed) == naive
