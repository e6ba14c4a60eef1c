"""Whatever happens to the store, the rows are those that would be computed; what is there is not computed again."""

import errno
import hashlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch

from tl_experiments.runtime import cache_lock, shard_writer
from tl_experiments.runtime.cache_entries import entries, verify
from tl_experiments.runtime.cache_pruning import make_room, prune
from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.row_store import RowStore
from tl_experiments.runtime.row_table import Compute
from tl_experiments.runtime.shard import Shard

FIELDS = {"backbone": "b" * 64, "image_size": 32}
FEATURE_DIM = 5


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test, with shards of four rows."""
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TL_CACHE_LIMIT_GB", raising=False)
    monkeypatch.setattr(shard_writer, "SHARD_ROWS", 4)
    return tmp_path / "cache"


def digest(number: int) -> str:
    return f"{number:064x}"


def row(number: int) -> torch.Tensor:
    return torch.arange(FEATURE_DIM) + 10.0 * number


class Job:
    """One filling of a store for images 0, 1, ...: what it gave, what it computed, and what it said."""

    def __init__(self, numbers: range | list[int], fields: dict | None = None, chunk: int = 3) -> None:
        self.numbers, self.chunk = list(numbers), chunk
        self.computed: list[int] = []
        self.told: list[str] = []
        self.rows = torch.full((len(self.numbers), FEATURE_DIM), torch.nan)
        self.store = RowStore(
            kind="features",
            fields=FIELDS if fields is None else fields,
            row_shape=(FEATURE_DIM,),
            dtype=torch.float32,
            notice=self.told.append,
        )

    def compute(self, positions: np.ndarray) -> Iterator[torch.Tensor]:
        assert positions.dtype == np.int64
        assert (np.diff(positions) > 0).all()
        for start in range(0, len(positions), self.chunk):
            numbers = [self.numbers[position] for position in positions[start : start + self.chunk]]
            self.computed += numbers
            yield torch.stack([row(number) for number in numbers])

    def fill(self) -> "Job":
        self.store.fill(self.rows, [digest(number) for number in self.numbers], self.compute)
        assert torch.equal(self.rows, torch.stack([row(number) for number in self.numbers]))
        return self


def files(suffix: str) -> list[Path]:
    folder = Job([0]).store.folder
    return sorted(path for path in folder.glob(f"*{suffix}") if path.name != "key.json")


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def settled(root: Path, numbers: range = range(10)) -> bool:
    """Whether everything is stored, sound and without leftovers."""
    return not Job(numbers).fill().computed and not list(verify(root)) and not prune(root, limit=1e9).freed


def test_what_was_computed_is_read_in_any_order_and_only_what_is_new_is_computed() -> None:
    assert Job(range(10)).fill().computed == list(range(10))
    assert Job([7, 2, 3, 9, 0]).fill().computed == []
    assert Job([20, *range(10), 11]).fill().computed == [20, 11]
    assert Job([11, 5, 20, 30]).fill().computed == [30]


def test_a_row_is_stored_once_and_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = Shard.read

    def reading(shard: Shard, wanted: list[int]) -> Iterator[tuple[int, bytes | None]]:
        read.extend(wanted)
        return real(shard, wanted)

    Job(range(6)).fill()
    monkeypatch.setattr(Shard, "read", reading)
    assert Job(list(range(9, -1, -1))).fill().computed == [9, 8, 7, 6]
    assert len(read) == 6
    assert [entry.rows for entry in entries(root)] == [10]


def test_images_that_occur_twice_are_computed_once() -> None:
    assert Job([1, 1, 2, 1, 3, 2]).fill().computed == [1, 2, 3]
    assert Job([3, 4, 3, 4, 1]).fill().computed == [4]


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_the_lengths_of_chunks_change_nothing(chunk: int) -> None:
    Job(range(10), chunk=chunk).fill()
    assert len(files(".rows")) == len(files(".json")) == 3
    assert Job(range(10)).fill().computed == []


def test_no_images_are_no_work() -> None:
    store = Job([]).store
    store.fill(torch.empty(0, FEATURE_DIM), [], Job([]).compute)
    assert not store.folder.exists()


def test_canvases_of_bytes_are_stored_as_they_are() -> None:
    canvases = torch.randint(256, (6, 3, 4, 4), dtype=torch.uint8)
    digests = [digest(number) for number in range(6)]

    def fill(compute: Compute) -> torch.Tensor:
        rows = torch.zeros_like(canvases)
        store = RowStore(kind="images", fields={}, row_shape=(3, 4, 4), dtype=torch.uint8, notice=pytest.fail)
        store.fill(rows, digests, compute)
        return rows

    assert torch.equal(fill(lambda positions: iter([canvases[positions]])), canvases)
    assert torch.equal(fill(lambda _: pytest.fail("it is all there")), canvases)


def test_other_fields_are_another_entry() -> None:
    Job(range(3)).fill()
    other = Job(range(3), fields=FIELDS | {"image_size": 64}).fill()
    assert other.computed == [0, 1, 2]
    assert json.loads((other.store.folder / "key.json").read_text())["fields"]["image_size"] == 64
    assert Job(range(3), fields=dict(reversed(FIELDS.items()))).fill().computed == []


def test_another_shape_or_type_is_another_entry() -> None:
    def key(kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> Path:
        return RowStore(kind=kind, fields=FIELDS, row_shape=shape, dtype=dtype, notice=pytest.fail).folder

    f32, i32 = torch.float32, torch.int32
    named = [("features", (6,), f32), ("features", (2, 3), f32), ("features", (6,), i32), ("images", (6,), f32)]
    assert len({key(*names) for names in named}) == len(named)
    with pytest.raises(ValueError, match=r"kind=models: expected one of features, images"):
        key("models", (6,), f32)


def test_rows_of_another_shape_or_type_are_refused() -> None:
    job = Job(range(3))
    for rows in (torch.zeros(3, 4), torch.zeros(2, FEATURE_DIM), torch.zeros(3, FEATURE_DIM, dtype=torch.float64)):
        with pytest.raises(ValueError, match="rows are"):
            job.store.fill(rows, [digest(number) for number in range(3)], job.compute)
    with pytest.raises(ValueError, match="contiguous"):
        job.store.fill(torch.zeros(FEATURE_DIM, 3).T, [digest(number) for number in range(3)], job.compute)


@pytest.mark.parametrize(
    ("chunks", "problem"),
    [
        ([torch.zeros(2, FEATURE_DIM)], "2 of 3 rows"),
        ([torch.zeros(4, FEATURE_DIM)], "3 rows were missing"),
        ([torch.zeros(3, 1)], "3 rows were missing"),
        ([torch.zeros(3, FEATURE_DIM, dtype=torch.float64)], "float64"),
    ],
)
def test_chunks_that_do_not_fit_are_refused(chunks: list[torch.Tensor], problem: str) -> None:
    job = Job(range(3))
    with pytest.raises(ValueError, match=problem):
        job.store.fill(job.rows, [digest(number) for number in range(3)], lambda _: iter(chunks))


def truncate(where: int) -> Callable[[], None]:
    return lambda: os.truncate(files(".rows")[0], where)


DAMAGES = {
    "payload empty": (truncate(0), "has 0 bytes instead of 80"),
    "payload cut in a row": (truncate(50), "has 50 bytes instead of 80"),
    "payload one byte short": (truncate(79), "has 79 bytes instead of 80"),
    "payload flipped": (lambda: flip(files(".rows")[0], 25), "1 of its 4 rows do not match their checksum"),
    "payload missing": (lambda: files(".rows")[0].unlink(), "its payload is missing"),
    "payload of another shard": (
        lambda: files(".rows")[0].write_bytes(
            next(p for p in files(".rows")[1:] if p.stat().st_size == 80).read_bytes()
        ),
        "4 of its 4 rows do not match their checksum",
    ),
    "manifest flipped": (lambda: flip(files(".json")[0], 100), "its manifest does not match its checksum"),
    "manifest empty": (lambda: os.truncate(files(".json")[0], 0), "its manifest does not match its checksum"),
    "manifest of another shard": (
        lambda: files(".json")[0].write_bytes(files(".json")[1].read_bytes()),
        "its manifest does not match its checksum",
    ),
    "manifest missing": (lambda: files(".json")[0].unlink(), "its manifest is missing"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_told_once_and_mended(name: str, root: Path) -> None:
    damage, fault = DAMAGES[name]
    Job(range(8)).fill()
    Job(range(10)).fill()  # the last shard is short, so that the first in the folder may be any of three
    for path in [path for path in files(".rows") if path.stat().st_size != 80]:
        path.unlink()
        path.with_suffix(".json").unlink()
    damage()
    (shown,) = verify(root)
    assert fault in shown.fault
    again = Job(range(10)).fill()
    assert set(again.computed) > {8, 9}
    assert len(again.told) == 1
    assert fault in again.told[0]
    assert "\n" not in again.told[0]
    assert Job(range(10)).fill().told == []
    assert settled(root)


def test_sound_rows_of_a_damaged_shard_are_not_computed_again(root: Path) -> None:
    Job(range(4)).fill()
    flip(files(".rows")[0], 25)
    assert Job(range(4)).fill().computed == [1]
    assert settled(root, range(4))


def test_a_manifest_moved_from_another_entry_is_not_believed(root: Path) -> None:
    other = Job(range(4), fields={"other": 1}).fill().store.folder
    job = Job(range(4))
    job.store.folder.mkdir(parents=True)
    for path in other.iterdir():
        path.rename(job.store.folder / path.name)
    job.fill()
    assert job.computed == [0, 1, 2, 3]
    assert "belongs to something else" in job.told[0]
    assert settled(root, range(4))


def test_a_row_that_is_not_wanted_is_not_read(root: Path) -> None:
    Job(range(4)).fill()
    flip(files(".rows")[0], 79)
    assert Job(range(3)).fill().told == []
    assert list(verify(root))


def test_a_lost_or_damaged_key_file_is_written_again(root: Path) -> None:
    folder = Job(range(10)).fill().store.folder
    for spoil in ((folder / "key.json").unlink, lambda: flip(folder / "key.json", 20)):
        spoil()
        assert len(list(verify(root))) == 1
        assert settled(root)


def test_a_temporary_file_of_a_dead_writer_is_removed() -> None:
    folder = Job(range(4)).fill().store.folder
    stale = folder / ".4711-0123456789abcdef"
    stale.write_bytes(b"half a shard")
    assert Job(range(8)).fill().told == []
    assert not stale.exists()


# ---- processes


def in_child(work: Callable[[], None]) -> int:
    """Fork a process that does the work and ends with 0; its id."""
    pid = os.fork()
    if pid == 0:
        try:
            torch.set_num_threads(1)
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return pid


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fill_slowly_and_count(log: Path) -> None:
    class Slow(Job):
        def compute(self, positions: np.ndarray) -> Iterator[torch.Tensor]:
            for chunk in super().compute(positions):
                with log.open("a") as file:
                    file.write("x" * len(chunk))
                time.sleep(0.01)
                yield chunk

    Slow(range(10)).fill()


def test_sixteen_processes_compute_once(tmp_path: Path, root: Path) -> None:
    log = tmp_path / "log"
    children = [in_child(lambda: fill_slowly_and_count(log)) for _ in range(16)]
    assert [ended(child) for child in children] == [0] * 16
    assert log.read_text() == "x" * 10
    assert settled(root)


@pytest.mark.parametrize("broken", ["raises", "does nothing"])
def test_where_locks_do_not_work_sixteen_processes_are_right_all_the_same(
    broken: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        if broken == "raises":
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    children = [in_child(lambda: fill_slowly_and_count(tmp_path / "log")) for _ in range(16)]
    assert [ended(child) for child in children] == [0] * 16
    assert len((tmp_path / "log").read_text()) >= 10
    Job(range(10)).fill()
    assert settled(root)


def test_where_locks_are_not_implemented_the_store_is_used_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def acquire(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    assert Job(range(4)).fill().told == []
    assert Job(range(4)).fill().computed == []


@pytest.mark.parametrize("rows_before", range(0, 11, 2))
def test_a_writer_that_is_killed_loses_little_and_blocks_nobody(rows_before: int, root: Path) -> None:
    class Dying(Job):
        def compute(self, positions: np.ndarray) -> Iterator[torch.Tensor]:
            for chunk in super().compute(positions):
                if len(self.computed) > rows_before:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield chunk

    child = in_child(lambda: Dying(range(10), chunk=1).fill() and None)
    assert ended(child) == (-signal.SIGKILL if rows_before < 10 else 0)
    after = Job(range(10)).fill()
    assert after.computed == list(range(rows_before // 4 * 4 if rows_before < 10 else 10, 10))
    assert after.told == []
    assert settled(root)


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "second fsync", "second replace"])
def test_a_writer_that_is_killed_in_the_middle_of_a_shard_leaves_a_store_that_works(call: str, root: Path) -> None:
    Job(range(2)).fill()  # key.json is written and stays out of the count

    def die_writing() -> None:
        name, wanted = call.split()[-1], 2 if call.startswith("second") else 1
        calls: list[int] = []

        def dying(*arguments: object) -> object:
            calls.append(1)
            if len(calls) == wanted:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)

        if name == "write":
            real = hashlib.sha256
            hashlib.sha256 = dying
        else:
            real = getattr(os, name)
            setattr(os, name, dying)
        Job(range(10)).fill()

    assert ended(in_child(die_writing)) == -signal.SIGKILL
    assert set(range(2, 10)) <= {*Job(range(10)).fill().computed}
    assert settled(root)


def test_an_error_while_computing_keeps_what_was_computed(root: Path) -> None:
    class Failing(Job):
        def compute(self, positions: np.ndarray) -> Iterator[torch.Tensor]:
            for chunk in super().compute(positions):
                if len(self.computed) > 6:
                    raise KeyboardInterrupt
                yield chunk

    with pytest.raises(KeyboardInterrupt):
        Failing(range(10)).fill()
    assert Job(range(10)).fill().computed == [6, 7, 8, 9]
    assert settled(root)


def test_who_waits_for_another_process_says_so_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_lock, "PATIENCE_SECONDS", 0.05)
    begun = tmp_path / "begun"

    class Hanging(Job):
        def compute(self, positions: np.ndarray) -> Iterator[torch.Tensor]:
            begun.touch()
            time.sleep(60)
            yield from super().compute(positions)

    holder = in_child(lambda: Hanging(range(4)).fill() and None)
    try:
        while not begun.exists():
            time.sleep(0.01)
        waiting = Job(range(4))
        alarm = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        alarm.start()
        with pytest.raises(KeyboardInterrupt):
            waiting.fill()
        assert waiting.told == ["cache: waiting for another process that computes the same features"]
        assert waiting.computed == []
        room = make_room(Path(os.environ["TL_CACHE_DIR"]), limit=0)  # there is nothing of it yet
        assert room.removed == room.kept == ()
    finally:
        os.kill(holder, signal.SIGKILL)
        ended(holder)
    assert Job(range(4)).fill().computed == [0, 1, 2, 3]  # the dead holder's lock is free


# ---- disks


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("first", [1, 2, 3, 4, 5])
def test_a_full_disk_is_told_once_and_changes_no_result(
    first: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, []

    def fsync(number: int) -> None:
        calls.append(number)
        (real if len(calls) < first else full)(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        job = Job(range(10)).fill()
        assert job.computed == list(range(10))
        assert len(job.told) == 1
        assert "No space left on device" in job.told[0]
        assert not list(root.glob("*/*/.*"))
    assert len(calls) == first
    Job(range(10)).fill()
    assert settled(root)


def test_files_that_may_not_grow_are_told_once_and_change_no_result(root: Path) -> None:
    resource = pytest.importorskip("resource")

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))
        job = Job(range(10)).fill()
        assert len(job.told) == 1, job.told
        assert "File too large" in job.told[0]

    assert ended(in_child(work)) == 0
    assert not [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"]
    Job(range(10)).fill()
    assert settled(root)


def test_a_folder_that_cannot_be_written_is_told_once_and_changes_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "file" / "below"))
    for _ in range(2):
        job = Job(range(10)).fill()
        assert job.computed == list(range(10))
        assert len(job.told) == 1
        assert str(tmp_path / "file") in job.told[0]


def test_a_folder_that_only_root_may_write_is_read(root: Path) -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root, who may become somebody else")
    Job(range(4)).fill()
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    for parent in root.parents[:3]:
        parent.chmod(0o755)

    def work() -> None:
        os.setuid(65534)
        job = Job(range(6)).fill()
        assert job.computed == [4, 5]
        assert len(job.told) == 1, job.told
        assert "Permission denied" in job.told[0]

    assert ended(in_child(work)) == 0


# ---- limits


def test_other_entries_make_room_and_this_one_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 2, 3):
        folder = Job(range(4), fields={"size": size}).fill().store.folder
        os.utime(folder / "key.json", (size, size))
    taken = sum(entry.bytes for entry in entries(root))
    Job(range(4), fields={"size": 1}).fill()  # read alone, it is the latest again
    monkeypatch.setenv("TL_CACHE_LIMIT_GB", str((taken + 5) / 1e9))
    assert Job(range(4), fields={"size": 4}).fill().told == []
    assert [entry.fields["size"] for entry in entries(root)] == [3, 1, 4]
    assert Job(range(4), fields={"size": 2}).fill().computed == [0, 1, 2, 3]


def test_this_entry_stays_although_clocks_differ_and_locks_do_not_work(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Job(range(4), fields={"other": 1}).fill().store.folder
    os.utime(other / "key.json", (4e9, 4e9))
    monkeypatch.setenv("TL_CACHE_LIMIT_GB", str((sum(path.stat().st_size for path in other.iterdir()) + 200) / 1e9))
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    Job(range(4)).fill()
    assert [entry.fields for entry in entries(root)] == [FIELDS]


def test_an_entry_larger_than_the_limit_is_not_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Job(range(1), fields={"other": 1}).fill()
    monkeypatch.setenv("TL_CACHE_LIMIT_GB", "0.000001")
    job = Job(range(100)).fill().fill()
    assert job.computed == [*range(100)] * 2
    assert len(job.told) == 1
    assert "TL_CACHE_LIMIT_GB" in job.told[0]
    assert [entry.fields for entry in entries(root)] == [{"other": 1}]


def test_a_wrong_limit_is_told_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TL_CACHE_LIMIT_GB", "much")
    with pytest.raises(SettingError, match="TL_CACHE_LIMIT_GB=much"):
        Job([0])


def test_an_entry_that_goes_while_it_is_read_and_written_breaks_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader finds it gone after any of its manifests, and the writer before any of its renames."""
    real = Shard.load
    for when in range(3):
        Job(range(10)).fill()
        seen: list[Path] = []

        def load(manifest: Path, when: int = when, seen: list[Path] = seen) -> Shard:
            if len(seen) == when:
                assert make_room(root, limit=0).removed
            seen.append(manifest)
            return real(manifest)

        monkeypatch.setattr(Shard, "load", load)
        assert Job(range(10)).fill().told == []
        monkeypatch.setattr(Shard, "load", real)
        assert settled(root)

    replace, calls = os.replace, []

    def late(source: str, target: Path) -> None:
        calls.append(target)
        if len(calls) == 3:
            monkeypatch.setattr("fcntl.flock", lambda *_: None)  # the pruner does not see that the entry is in use
            assert make_room(root, limit=-1).removed
        replace(source, target)

    make_room(root, limit=-1)
    monkeypatch.setattr(os, "replace", late)
    assert Job(range(10)).fill().told == []
