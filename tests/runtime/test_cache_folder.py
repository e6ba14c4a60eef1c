"""Caches are where the user wants them, no larger than the user wants, and lose what was used least recently."""

import os
import time
from pathlib import Path

import filelock
import platformdirs
import pytest
import torch

from tl_experiments.runtime.cache_entries import CacheEntry, entries, verify
from tl_experiments.runtime.cache_folder import cache_folder, cache_limit
from tl_experiments.runtime.cache_lock import locked
from tl_experiments.runtime.cache_pruning import make_room, prune
from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.row_store import RowStore

NUM_ROWS = 6


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TL_CACHE_LIMIT_GB", raising=False)
    return tmp_path


def make_entry(name: str, *, used: float = 0.0, kind: str = "features") -> Path:
    """An entry of six rows of 8 bytes that was last used at a time; its folder."""
    store = RowStore(kind=kind, fields={"name": name}, row_shape=(2,), dtype=torch.float32, notice=pytest.fail)
    store.fill(
        torch.zeros(NUM_ROWS, 2), [f"{n:064x}" for n in range(NUM_ROWS)], lambda p: iter([torch.ones(len(p), 2)])
    )
    os.utime(store.folder / "key.json", (used, used))
    return store.folder


def names(found: tuple[CacheEntry, ...] | list[CacheEntry]) -> list[str]:
    return [entry.fields["name"] for entry in found]


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir())


def test_caches_are_in_the_users_cache_folder_unless_they_are_wanted_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    for chosen, folder in (
        ("/data/cache", "/data/cache"),
        ("~/cache", Path.home() / "cache"),
        ("cache", "/cache"),
        ("", platformdirs.user_cache_path("tl_experiments", appauthor=False)),
    ):
        monkeypatch.setenv("TL_CACHE_DIR", chosen)
        assert cache_folder() == Path(folder)


def test_caches_may_take_twenty_gigabytes_unless_another_number_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_limit() == 20e9
    for chosen, limit in (("", 20e9), ("0", 0), ("0.5", 0.5e9), ("1e3", 1e12)):
        monkeypatch.setenv("TL_CACHE_LIMIT_GB", chosen)
        assert cache_limit() == limit


@pytest.mark.parametrize("chosen", ["much", "20GB", "-1", "nan", "inf", "-inf", "1e999"])
def test_a_limit_that_is_no_number_is_told_in_one_line(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TL_CACHE_LIMIT_GB", chosen)
    with pytest.raises(
        SettingError, match=rf"^TL_CACHE_LIMIT_GB={chosen}: expected a number of gigabytes.*20 or 0\.5$"
    ):
        cache_limit()


def test_entries_say_what_they_are_least_recently_used_first(root: Path) -> None:
    late, early = make_entry("late", used=2000), make_entry("early", used=1000, kind="images")
    assert entries(root) == [
        CacheEntry(path=early, fields={"name": "early"}, rows=NUM_ROWS, bytes=size(early), last_used=1000),
        CacheEntry(path=late, fields={"name": "late"}, rows=NUM_ROWS, bytes=size(late), last_used=2000),
    ]
    assert [(entry.kind, entry.key) for entry in entries(root)] == [("images", early.name), ("features", late.name)]


def test_an_entry_is_used_when_it_is_read() -> None:
    folder = make_entry("a", used=1000)
    before = time.time()
    RowStore(kind="features", fields={"name": "a"}, row_shape=(2,), dtype=torch.float32, notice=pytest.fail).fill(
        torch.zeros(1, 2), [f"{0:064x}"], lambda _: pytest.fail("it is there")
    )
    assert (folder / "key.json").stat().st_mtime >= before - 1


def test_an_entry_whose_fields_cannot_be_read_is_listed_all_the_same(root: Path) -> None:
    folder = make_entry("a")
    for text in ("{", "[]", '{"fields": 1}', "[" * 100_000):
        (folder / "key.json").write_text(text)
        (entry,) = entries(root)
        assert (entry.fields, entry.bytes) == ({}, size(folder))
    (folder / "key.json").unlink()
    assert entries(root)[0].last_used > 1000


def test_where_there_is_no_cache_there_is_nothing_to_do(root: Path) -> None:
    nowhere = root / "nowhere"
    assert entries(nowhere) == list(verify(nowhere)) == []
    assert prune(nowhere, limit=0).freed == 0
    assert not nowhere.exists()


def test_the_least_recently_used_go_until_the_rest_fits(root: Path) -> None:
    for number, name in enumerate("dbca"):
        make_entry(name, used=1000 + number, kind="features" if number % 2 else "images")
    one = size(entries(root)[0].path)
    assert prune(root, limit=4 * one).removed == ()
    assert names(make_room(root, limit=3 * one, keep=entries(root)[0].path).removed) == ["b"]
    pruned = prune(root, limit=3 * one - 1)
    assert names(pruned.removed) == ["d"]
    assert pruned.freed == one
    assert names(entries(root)) == ["c", "a"]
    assert names(prune(root, limit=float("-inf")).removed) == ["c", "a"]
    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_an_entry_that_another_process_is_filling_stays(root: Path) -> None:
    busy, other = make_entry("busy", used=1), make_entry("other", used=2)
    (busy / ".1-unfinished").touch()
    with locked(busy):  # a second lock of the same file excludes the first, whoever has it
        pruned = prune(root, limit=0)
        assert (names(pruned.removed), names(pruned.kept)) == (["other"], ["busy"])
        assert (busy / ".1-unfinished").exists()
    assert not other.exists()
    assert names(prune(root, limit=0).removed) == ["busy"]


def test_what_dead_writers_left_is_removed_and_counted(root: Path) -> None:
    folder = make_entry("a")
    (folder / ".4711-half").write_bytes(b"x" * 100)
    (folder / f"{'0' * 64}.rows").write_bytes(b"x" * 20)
    trash = folder.with_name(".trash-0123")
    trash.mkdir()
    (trash / "x.rows").write_bytes(b"x" * 3)
    pruned = prune(root, limit=1e9)
    assert (pruned.removed, pruned.freed) == ((), 123)
    assert not trash.exists()
    assert list(verify(root)) == []
    assert prune(root, limit=1e9).freed == 0


def test_without_locks_only_old_leftovers_are_removed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_entry("a")

    def acquire(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    for name, age in (("old", 7200), ("new", 60)):
        (folder / f".{name}").touch()
        os.utime(folder / f".{name}", (time.time() - age,) * 2)
    prune(root, limit=1e9)
    assert [path.name for path in folder.glob(".*")] == [".new"]
    assert names(prune(root, limit=0).removed) == ["a"]


def test_what_is_not_ours_is_never_touched(root: Path) -> None:
    foreign = [
        root / "results" / ("0" * 64) / "a.rows",
        root / "features" / "notes" / ".x",
        root / "features" / ("0" * 64),
    ]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.rows").touch()
    (root / "features" / ("1" * 64)).symlink_to(elsewhere)
    assert entries(root) == []
    assert prune(root, limit=float("-inf")).freed == 0
    assert [path.read_text() for path in foreign] == ["mine"] * 3
    assert (elsewhere / "a.rows").exists()


def test_verify_reads_every_row_and_names_every_damaged_shard(root: Path) -> None:
    one, other = make_entry("a"), make_entry("b", kind="images")
    assert list(verify(root)) == []
    for folder in (one, other):
        (payload,) = folder.glob("*.rows")
        content = bytearray(payload.read_bytes())
        content[-1] ^= 128
        payload.write_bytes(content)
    found = list(verify(root))
    assert [damage.path.parent for damage in found] == [one, other]
    assert {damage.fault for damage in found} == {"1 of its 6 rows do not match their checksum"}
