"""`tlx cache`: what is kept, whether it is sound, and how to be rid of it."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tl_experiments.cli.verbs import main


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TL_CACHE_LIMIT_GB", raising=False)
    return tmp_path / "cache"


def make_entry(backbone: str, *, used: float) -> Path:
    """An entry of 100 rows of 400 bytes; its folder."""
    import torch

    from tl_experiments.runtime.row_store import RowStore

    fields = {
        "backbone": {"name": backbone},
        "image": {"size": 224},
        "compute": {"precision": "fp32"},
        "view": {"number": 1},
    }
    store = RowStore(kind="features", fields=fields, row_shape=(100,), dtype=torch.float32, notice=pytest.fail)
    digests = [f"{number:064x}" for number in range(100)]
    store.fill(torch.zeros(100, 100), digests, lambda positions: iter([torch.ones(len(positions), 100)]))
    os.utime(store.folder / "key.json", (used, used))
    return store.folder


def test_list_shows_entries_total_limit_and_folder(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = make_entry("resnet18", used=1e9), make_entry("[b]vit[/b]", used=1.5e9)
    assert main(["cache", "list"]) == 0
    *table, total = capsys.readouterr().out.splitlines()
    (shown_new,) = (line for line in table if "[b]vit[/b], 224 px, fp32, view 2 " in line)
    (shown_old,) = (line for line in table if "resnet18, 224 px, fp32, view 2 " in line)
    assert table.index(shown_new) < table.index(shown_old)
    for line, folder, year in ((shown_new, new, "2017-07-14"), (shown_old, old, "2001-09-")):
        assert all(part in line for part in ("features", folder.name[:12], " 100 ", " kB", year)), line
    assert total.endswith(f" kB of 20.0 GB in {root}")


def test_list_of_nothing_names_folder_and_limit(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TL_CACHE_LIMIT_GB", "1.5")
    assert main(["cache", "list"]) == 0
    assert capsys.readouterr().out == f"0 bytes of 1.5 GB in {root}\n"


def test_verify_names_a_damaged_shard_and_the_way_out(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_entry("resnet18", used=1e9)
    assert main(["cache", "verify"]) == 0
    assert capsys.readouterr().out == f"{root}: every row is as it was written\n"
    (payload,) = folder.glob("*.rows")
    os.truncate(payload, 100)
    assert main(["cache", "verify"]) == 1
    damaged, way_out = capsys.readouterr().out.splitlines()
    manifest = payload.with_suffix(".json")
    assert damaged == f"damaged: {manifest}: its payload has 100 bytes instead of 40000"
    assert "tlx cache prune --all" in way_out


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ('"row_bytes":1180591620717411303424', "its manifest belongs to something else"),
        ('"row_bytes":1e400', "its manifest is not one of a shard"),
        ('"row_bytes":1099511627776', "its payload has 40000 bytes instead of 109951162777600"),
        ('"row_bytes":400,"digests":[[]],"sha256":[[]]', "its manifest is not one of a shard"),
    ],
    ids=["no size", "infinity", "more than the memory", "no digests"],
)
def test_verify_names_a_manifest_that_was_made_up(capsys: pytest.CaptureFixture[str], told: str, fault: str) -> None:
    """Its name is its checksum, as that of any manifest."""
    [manifest] = [path for path in make_entry("resnet18", used=1e9).glob("*.json") if path.name != "key.json"]
    text = manifest.read_text(encoding="utf-8").replace('"row_bytes":400', told)
    text = text if "digests" not in told else f'{{"key":"{manifest.parent.name}",{told}}}'
    made_up = manifest.with_name(f"{hashlib.sha256(text.encode()).hexdigest()}.json")
    manifest.with_suffix(".rows").rename(made_up.with_suffix(".rows"))
    manifest.unlink()
    made_up.write_text(text, encoding="utf-8")
    assert main(["cache", "verify"]) == 1
    damaged, _ = capsys.readouterr().out.splitlines()
    assert damaged == f"damaged: {made_up}: {fault}"


def test_verify_of_a_folder_that_is_not_there_is_no_success(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_entry("resnet18", used=1e9)
    monkeypatch.setenv("TL_CACHE_DIR", str(root.with_name("cahce")))
    assert main(["cache", "verify"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: there is no cache at {root.with_name('cahce')}")
    assert "TL_CACHE_DIR" in line


@pytest.mark.parametrize("closed", ["cache", "kind", "entry"])
def test_verify_of_what_cannot_be_read_is_no_success(
    closed: str, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make_entry("resnet18", used=1e9)
    hidden = {"cache": root, "kind": entry.parent, "entry": entry}[closed]
    listdir, lstat = os.listdir, Path.lstat

    def refuse(path: str | Path, inside: bool) -> None:
        if hidden in Path(path).parents or (inside and Path(path) == hidden):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def refusing_listdir(path: str | Path) -> list[str]:
        refuse(path, inside=True)
        return listdir(path)

    def refusing_lstat(path: Path) -> os.stat_result:
        refuse(path, inside=False)
        return lstat(path)

    monkeypatch.setattr(os, "listdir", refusing_listdir)
    monkeypatch.setattr(Path, "lstat", refusing_lstat)
    assert main(["cache", "verify"]) == 1
    first, *_, way_out = capsys.readouterr().out.splitlines()
    shown = entry.parent if closed == "cache" else hidden
    assert first == f"damaged: {shown}: it cannot be listed (Permission denied)"
    assert "tlx cache prune --all" in way_out


@pytest.mark.parametrize("verb", ["list", "verify", "prune"])
def test_a_folder_of_a_user_who_is_not_there_is_told_in_one_line(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TL_CACHE_DIR", "~nobody_there/x")
    assert main(["cache", verb]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: TL_CACHE_DIR=~nobody_there/x: there is no home of ~nobody_there")


@pytest.mark.parametrize(("options", "left"), [((), 2), (("--limit-gb", "0.00008"), 1), (("--all",), 0)])
def test_prune_says_what_went(
    options: tuple[str, ...], left: int, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [make_entry("resnet18", used=1e9), make_entry("vit", used=1.5e9)]
    (folders[1] / ".1-half").write_bytes(b"x" * 5000)
    assert main(["cache", "prune", *options]) == 0
    *removed, unfinished, freed = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in removed] == [f"removed: features {f.name[:12]}" for f in folders[: 2 - left]]
    assert unfinished == "removed: 5.0 kB that unfinished writes left"
    assert freed.startswith("freed ")
    assert freed.endswith(f" in {root}")
    assert [folder.exists() for folder in folders] == [left > 1, left > 0]


@pytest.mark.parametrize("limit", ["much", "-1", "nan"])
def test_a_wrong_limit_is_told_in_one_line_and_removes_nothing(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_entry("resnet18", used=1e9)
    assert main(["cache", "prune", f"--limit-gb={limit}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --limit-gb {limit}: expected a number of gigabytes")
    assert folder.exists()


def test_a_wrong_limit_of_the_environment_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TL_CACHE_LIMIT_GB", "much")
    for verb in ("list", "prune"):
        assert main(["cache", verb]) == 2
        assert capsys.readouterr().err.startswith("error: TL_CACHE_LIMIT_GB=much: expected")


def test_nothing_heavy_is_imported() -> None:
    look = (
        "import sys; from tl_experiments.cli.verbs import main; main(['cache', 'list']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
