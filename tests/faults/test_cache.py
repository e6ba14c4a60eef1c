"""Many processes on one key, a holder of the lock that dies, flipped bits and a full disk: the rows are right."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.faults import scorecard
from tests.faults.scorecard import count, record, skip
from tests.faults.writers import STATE_BYTES, content
from tests.runtime.row_store.filling import Job, digest, ended, in_child, own_cache, row, settled
from tl_experiments.runtime import shard_writer
from tl_experiments.runtime.cache_entries import verify
from tl_experiments.runtime.files import DamageError, published_folder, verify_folder
from tl_experiments.runtime.row_store import RowStore
from tl_experiments.runtime.shard import Shard

RACE, HOLDER, FLIPS, COST, FULL = (
    "processes on one key",
    "lock holder killed",
    "bit flips",
    "cost of verification",
    "disk full while caching",
)
PROCESSES, IMAGES = 16, 10
ROOT = Path(__file__).parent.parent.parent
BIG_ROW, BIG_ROWS = 1280, 1000  # features of the default backbone: 5 MB


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test."""
    return own_cache(tmp_path, monkeypatch)


class Slow(Job):
    """Computes so slowly that all others come meanwhile, and counts in a file what it computed."""

    log: Path

    def compute(self, positions: np.ndarray) -> Iterator[torch.Tensor]:
        for chunk in super().compute(positions):
            with self.log.open("a") as file:
                file.write("x" * len(chunk))
            time.sleep(0.01)
            yield chunk


def race(log: Path, *, locks: bool = True, apart_seconds: float = 0.0) -> list[int]:
    """Start many fillings of one key at the same moment, or one after the other; how they ended: 2 is a wrong row."""
    Slow.log = log
    barrier = get_context("fork").Barrier(PROCESSES)

    def fill(number: int) -> None:
        job = Slow(range(IMAGES))
        barrier.wait()
        time.sleep(number * apart_seconds)
        try:
            job.fill()
        except AssertionError:
            os._exit(2)
        # without locks one may take another's payload, whose manifest is still to come, for a dead writer's
        assert not locks or all("waiting" in line for line in job.told), job.told

    children = [in_child(lambda number=number: fill(number)) for number in range(PROCESSES)]
    return [ended(child) for child in children]


def flock_that(broken: str) -> Callable[..., None]:
    def flock(*_: object) -> None:
        if broken == "raises":
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    return flock


def test_sixteen_processes_compute_once(tmp_path: Path, root: Path) -> None:
    torn = computed = 0
    rounds = count(ordinary=1, full=20)
    for number in range(rounds):
        codes = race(tmp_path / str(number))
        assert set(codes) <= {0, 2}
        torn += codes.count(2)
        computed += len((tmp_path / str(number)).read_text())
        assert settled(root)
        shutil.rmtree(root)
    extractions = computed / rounds / IMAGES
    record(RACE, tried=f"{PROCESSES} with locks", rounds=rounds, extractions=extractions, torn_reads=torn)
    assert (computed, torn) == (rounds * IMAGES, 0)


@pytest.mark.parametrize("broken", ["raises", "does nothing"])
def test_where_locks_do_not_work_sixteen_processes_are_right_all_the_same(
    broken: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It also shows that extractions are counted: now there are more."""
    torn = computed = 0
    rounds = count(ordinary=1, full=20)
    monkeypatch.setattr("fcntl.flock", flock_that(broken))
    for number in range(rounds):
        codes = race(tmp_path / str(number), locks=False)
        assert set(codes) <= {0, 2}
        torn += codes.count(2)
        computed += len((tmp_path / str(number)).read_text())
        Job(range(IMAGES)).fill()
        assert settled(root)
        shutil.rmtree(root)
    extractions = computed / rounds / IMAGES
    record(RACE, tried=f"flock {broken}", rounds=rounds, extractions=extractions, torn_reads=torn)
    assert torn == 0
    assert extractions > 1


def test_reads_that_are_torn_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without locks, and with shards that are written in their places and believed, readers get half of them."""

    def write_in_place(entry: Path, rows: Iterator[memoryview], digests: list[str], *, row_bytes: int) -> None:
        payload = entry / "shared.rows"
        with payload.open("wb", buffering=0) as file:
            for position, one in enumerate(rows):
                file.write(bytes(row_bytes))  # as a file is that is made large enough first
                time.sleep(0.02)
                file.seek(position * row_bytes)
                file.write(one)
        payload.with_suffix(".json").write_text("\n".join(digests))

    def load(manifest: Path) -> Shard:
        digests = tuple(manifest.read_text().split())
        return Shard(manifest, 20, digests, ("",) * len(digests))

    def read(shard: Shard, wanted: list[int]) -> Iterator[tuple[int, bytes]]:
        whole = shard.payload.read_bytes()
        for index in wanted:
            yield index, whole[index * 20 : index * 20 + 20].ljust(20, b"\0")

    monkeypatch.setattr(shard_writer, "write_shard", write_in_place)
    monkeypatch.setattr(Shard, "load", load)
    monkeypatch.setattr(Shard, "read", read)
    monkeypatch.setattr("fcntl.flock", flock_that("does nothing"))
    codes = race(tmp_path / "log", locks=False, apart_seconds=0.02)
    record(RACE, tried="control, written in place and believed", torn_reads=codes.count(2))
    assert 2 in codes


def test_who_waits_for_a_holder_that_is_killed_goes_on_at_once(tmp_path: Path, root: Path) -> None:
    longest = 0.0
    rounds = count(ordinary=2, full=20)
    for number in range(rounds):
        begun, done = tmp_path / f"begun-{number}", tmp_path / f"done-{number}"

        class Hanging(Job):
            def compute(self, positions: np.ndarray) -> Iterator[torch.Tensor]:
                begun.touch()  # noqa: B023 - it runs in this round
                time.sleep(60)
                yield from super().compute(positions)

        holder = in_child(lambda: Hanging(range(IMAGES)).fill() and None)
        await_file(begun)
        waiting = in_child(lambda: Job(range(IMAGES)).fill() and done.touch())  # noqa: B023
        time.sleep(0.2)
        assert not done.exists()
        killed = time.monotonic()
        os.kill(holder, signal.SIGKILL)
        await_file(done)
        longest = max(longest, time.monotonic() - killed)
        assert (ended(holder), ended(waiting)) == (-signal.SIGKILL, 0)
        assert settled(root)
        shutil.rmtree(root)
    record(HOLDER, rounds=rounds, longest_wait_s=longest)
    assert longest < 1


def await_file(path: Path) -> None:
    while not path.exists():
        time.sleep(0.002)


def flip(path: Path, bit: int) -> None:
    """Change one bit; doing so again undoes it."""
    with path.open("r+b", buffering=0) as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def flips_found(paths: list[Path], *, damaged: Callable[[], bool], times: int) -> int:
    """Flip random bits, one at a time, in files in turn; how many are found."""
    draw, found = random.Random(0), 0
    assert not damaged()
    for number in range(times):
        path = paths[number % len(paths)]
        bit = draw.randrange(path.stat().st_size * 8)
        flip(path, bit)
        found += damaged()
        flip(path, bit)
    assert not damaged()
    return found


def cached_files(root: Path) -> list[Path]:
    return [path for path in sorted(root.rglob("*")) if path.suffix in (".rows", ".json") and path.name != "key.json"]


def test_every_flipped_bit_of_the_cache_is_found_and_mended(root: Path) -> None:
    Job(range(40)).fill()
    paths, times = cached_files(root), 100
    assert {path.suffix for path in paths} == {".rows", ".json"}
    found = flips_found(paths, damaged=lambda: bool(list(verify(root))), times=times)
    told = 0
    for number in range(mended := count(ordinary=20, full=100)):
        paths = cached_files(root)
        path = paths[number * 7 % len(paths)]
        flip(path, random.Random(number).randrange(path.stat().st_size * 8))
        told += len(Job(range(40)).fill().told)  # which sees that the rows are right
    record(FLIPS, tried="cache", flips=times, detected=found, read_and_mended=f"{told}/{mended}")
    assert (found, told) == (times, mended)
    assert settled(root, range(40))


def test_flips_that_are_not_checked_are_not_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Safetensors and torch.load accept them, and so would a cache that trusts sizes."""
    Job(range(40)).fill()

    def read(shard: Shard, wanted: list[int]) -> Iterator[tuple[int, bytes]]:
        whole = shard.payload.read_bytes()
        yield from ((index, whole[index * shard.row_bytes : (index + 1) * shard.row_bytes]) for index in wanted)

    monkeypatch.setattr(Shard, "read", read)
    payloads = [path for path in cached_files(root) if path.suffix == ".rows"]
    found = flips_found(payloads, damaged=lambda: bool(list(verify(root))), times=100)
    record(FLIPS, tried="control, sizes alone are checked", flips=100, detected=found)
    assert found == 0
    flip(payloads[0], 77)
    with pytest.raises(AssertionError):
        Job(range(40)).fill()


def test_every_flipped_bit_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "step-1"
    with published_folder(folder) as making:
        (making / "state.safetensors").write_bytes(content(1, STATE_BYTES))
        (making / "state.json").write_text('{"number": 1}')

    def damaged() -> bool:
        try:
            verify_folder(folder)
        except DamageError:
            return True
        return False

    found = flips_found(sorted(folder.iterdir()), damaged=damaged, times=100)
    manifest = folder / "manifest.json"
    bits = 8 * manifest.stat().st_size
    for bit in range(bits):
        flip(manifest, bit)
        found += damaged()
        flip(manifest, bit)
    record(FLIPS, tried="checkpoint", flips=100 + bits, detected=found)
    assert found == 100 + bits


def test_verification_costs_milliseconds_a_megabyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_writer, "SHARD_ROWS", 1024)
    rows = torch.rand(BIG_ROWS, BIG_ROW)
    store = RowStore(kind="features", fields={}, row_shape=(BIG_ROW,), dtype=torch.float32, notice=pytest.fail)
    digests = [digest(number) for number in range(BIG_ROWS)]
    store.fill(torch.empty_like(rows), digests, lambda positions: iter([rows[positions]]))
    with published_folder(tmp_path / "step-1") as making:
        (making / "state.safetensors").write_bytes(content(1, 20_000_000))
    read = torch.empty_like(rows)
    costs = {
        "cache_ms_per_MB": milliseconds(lambda: store.fill(read, digests, pytest.fail)) / (rows.nbytes / 1e6),
        "checkpoint_ms_per_MB": milliseconds(lambda: verify_folder(tmp_path / "step-1")) / 20,
    }
    assert torch.equal(read, rows)
    record(COST, **costs)
    assert max(costs.values()) < 50


def milliseconds(work: Callable[[], object]) -> float:
    """The quickest of three: what it costs without what else the machine does."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds)


@pytest.fixture
def small_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache on a disk of 64 KB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    mount = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("mount") else None
    if mount is None or mount.returncode:
        skip(FULL, f"no tmpfs can be mounted: {mount.stderr.strip() if mount else 'there is no mount'}")
    monkeypatch.setenv("TL_CACHE_DIR", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_rows_that_find_no_room_are_the_same_and_what_was_cached_stays(small_cache: Path) -> None:
    """One warning, no leftovers, and the shards that found room are read again."""
    job = Job(range(400)).fill()
    assert torch.equal(job.rows, torch.stack([row(number) for number in range(400)]))
    (line,) = job.told
    assert "No space left on device" in line
    assert not list(verify(small_cache))
    assert not [path for path in small_cache.rglob("*") if path.name.startswith(".unfinished")]
    payloads = {path.stem for path in small_cache.rglob("*.rows")}
    assert payloads
    assert payloads == {path.stem for path in small_cache.rglob("*.json")} - {"key"}
    again = Job(range(400)).fill()
    assert again.computed == list(range(4 * len(payloads), 400))
    record(FULL, tried="rows", rows=400, wrong=0, warnings=1, leftovers=0, cached_before_it_was_full=4 * len(payloads))


def run_of_a_head(folder: Path, *, cache: Path) -> tuple[str, str]:
    """Train a head; the digest of its weights, and what was told."""
    overrides = ("dataset.train_size=100", "epochs=2", "backbone.image_size=32", "runtime.device=cpu", "tracking=none")
    command = [sys.executable, str(ROOT / "run.py"), *overrides, f"hydra.run.dir={folder}"]
    environment = {**os.environ, "TL_CACHE_DIR": str(cache)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads((folder / "result.json").read_text())["weights_sha256"], ended.stdout + ended.stderr


def test_a_run_whose_cache_is_full_has_the_same_bits(small_cache: Path, tmp_path: Path) -> None:
    if not scorecard.FULL:
        skip(FULL, "whole runs are for scripts/faults")
    with_room, quiet = run_of_a_head(tmp_path / "with-room", cache=tmp_path / "room")
    without, told = run_of_a_head(tmp_path / "without", cache=small_cache)
    record(FULL, tried="a run", same_bits=with_room == without, warned=told.count("No space left on device"))
    assert with_room == without
    assert "cannot be written" not in quiet
    assert told.count("No space left on device") >= 1
