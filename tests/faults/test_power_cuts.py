"""A power cut at any moment damages nothing and takes nothing that was reported as saved: on ext4, by its ioctl."""

import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.injection import Writers, writers
from tests.faults.scorecard import count, record, skip
from tests.faults.writers import CARELESS, WRITERS
from tl_experiments.runtime.files import sync_folder

ROW = "power cut"
SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
WITH_JOURNAL, WITHOUT_JOURNAL = 1, 2  # what is in memory of the journal is written at the last moment, or is lost
IMAGE_BYTES = 64 << 20
LEAST_SAVES, MOST_SAVES = 2, 6  # before a cut
BETWEEN = 0.75  # of the cuts come while something is saved


@dataclass(frozen=True)
class Disk:
    """A file with a file system of its own, which loses what a power cut would lose."""

    image: Path
    folder: Path

    @contextmanager
    def mounted(self) -> Iterator[None]:
        # the journal is committed by fsync, or every five seconds
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.folder)], check=True, capture_output=True)
        try:
            yield
        finally:
            subprocess.run(["umount", str(self.folder)], check=True, capture_output=True)

    def cut_off(self, how: int) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", how))
        finally:
            os.close(descriptor)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    folder = tmp_path_factory.mktemp("power")
    if os.geteuid() != 0:
        skip(ROW, "only root may mount a file system")
    for program in ("mkfs.ext4", "mount"):
        if shutil.which(program) is None:
            skip(ROW, f"{program} is not installed")
    made = Disk(folder / "image", folder / "mounted")
    made.folder.mkdir()
    with made.image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(made.image)], check=True, capture_output=True)
    try:
        with made.mounted():
            made.cut_off(WITHOUT_JOURNAL)
    except subprocess.CalledProcessError as error:
        skip(ROW, f"no ext4 can be mounted from a file: {error.stderr.decode().strip()}")
    except OSError as error:
        skip(ROW, f"this ext4 cannot be cut off: {error}")
    return made


@pytest.fixture(scope="module")
def server() -> Iterator[Writers]:
    with writers() as started:
        yield started


@dataclass
class Cuts:
    """What cuts have cost."""

    cuts: int = 0
    saves: int = 0
    damaged: int = 0
    lost: int = 0


def save_until_cut(disk: Disk, server: Writers, writer: str, *, care: str, draw: random.Random, worst: bool) -> int:
    """Save a few times, and cut the power while the next save is made or right after the last; what was reported.

    Args:
        worst: cut right after the last save, with all of the journal that is not on the disk yet.
    """
    folder = disk.folder / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    sync_folder(folder)
    pid = server.start(writer, folder, care=care)
    start, saves = time.monotonic(), draw.randint(LEAST_SAVES, MOST_SAVES)
    for number in range(1, saves + 1):
        server.save(number)
        assert server.answer() == {"saved": number, "error": ""}
    if not worst and draw.random() < BETWEEN:
        server.save(saves + 1)
        time.sleep(draw.uniform(0, 1.2) * (time.monotonic() - start) / saves)
    disk.cut_off(WITHOUT_JOURNAL if worst else draw.choice((WITH_JOURNAL, WITHOUT_JOURNAL)))
    os.kill(pid, signal.SIGKILL)
    ended = server.end()
    return ended.saved if ended.saved and not ended.error else saves


def cut_often(disk: Disk, server: Writers, *, care: str, times: int) -> Cuts:
    """Cut the power under each writer in turn; where it is careless, first at the worst moment."""
    cuts, draw = Cuts(), random.Random(care)
    for number in range(times):
        writer = list(WRITERS)[number % len(WRITERS)]
        worst = bool(care) and number < len(WRITERS)
        with disk.mounted():
            reported = save_until_cut(disk, server, writer, care=care, draw=draw, worst=worst)
        cuts.cuts += 1
        cuts.saves += reported
        with disk.mounted():
            try:
                cuts.lost += WRITERS[writer].newest(disk.folder / "run") < reported
            except Exception:
                cuts.damaged += 1
    return cuts


def test_nothing_is_damaged_and_nothing_that_was_reported_is_lost(disk: Disk, server: Writers) -> None:
    cuts = cut_often(disk, server, care="", times=count(ordinary=5, full=200))
    record(ROW, tried="publish", cuts=cuts.cuts, saves=cuts.saves, damaged=cuts.damaged, reported_and_lost=cuts.lost)
    assert (cuts.damaged, cuts.lost) == (0, 0)


@pytest.mark.parametrize("care", ["naive", *CARELESS])
def test_the_cuts_find_a_writer_that_forces_less_to_the_disk(care: str, disk: Disk, server: Writers) -> None:
    cuts = cut_often(disk, server, care=care, times=count(ordinary=5, full=50))
    tried = f"control, {care}"
    record(ROW, tried=tried, cuts=cuts.cuts, saves=cuts.saves, damaged=cuts.damaged, reported_and_lost=cuts.lost)
    assert cuts.damaged + cuts.lost
