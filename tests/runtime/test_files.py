"""A published file is whole or not there, whoever reads it and whenever its writer dies."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tl_experiments.runtime import files
from tl_experiments.runtime.files import (
    DamageError,
    append_lines,
    publish_text,
    published_folder,
    remove_unfinished,
    verify_folder,
)

WRITE_FOREVER = """
import itertools, sys
from pathlib import Path
from tl_experiments.runtime.files import publish_text
for number in itertools.count():
    publish_text(Path(sys.argv[1]), str(number % 10) * 3_000_000)
    print(number, flush=True)
"""


def test_text_is_written_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    for text in ("first: äöü ✓\n", "second\n", ""):
        publish_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_a_reader_sees_one_text_or_the_other(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    texts = {letter * 200_000 for letter in "ab"}
    publish_text(path, "a" * 200_000)
    seen, done = set(), threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_text(encoding="utf-8"))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        for text in texts:
            publish_text(path, text)
    done.set()
    reader.join()
    assert seen
    assert seen <= texts


def test_an_error_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    publish_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        publish_text(path, "n" * 100_000 + "\ud800")  # half a surrogate pair has no encoding
    assert path.read_text(encoding="utf-8") == "old"
    other = tmp_path / "other.json"
    with pytest.raises(UnicodeEncodeError):
        publish_text(other, "\ud800")
    assert not other.exists()


def test_a_writer_that_is_killed_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    for round_ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOREVER, str(path)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        assert writer.stdout is not None
        for _ in range(4 + round_):
            writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        text = path.read_text(encoding="utf-8")
        assert len(text) == 3_000_000
        assert len(set(text)) == 1
        publish_text(path, "x")
        assert path.read_text(encoding="utf-8") == "x"


def _save(folder: Path, content: bytes) -> None:
    with published_folder(folder) as making:
        (making / "state.safetensors").write_bytes(content)
        (making / "state.json").write_text("{}")


def test_a_folder_is_published_whole_and_verified(tmp_path: Path) -> None:
    _save(tmp_path / "a", b"first")
    _save(tmp_path / "a", b"second")
    verify_folder(tmp_path / "a")
    assert (tmp_path / "a" / "state.safetensors").read_bytes() == b"second"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    _save(tmp_path / "a", b"first")
    with pytest.raises(TypeError), published_folder(tmp_path / "a") as making:
        (making / "state.safetensors").write_bytes("half")  # type: ignore[arg-type]
    verify_folder(tmp_path / "a")
    assert (tmp_path / "a" / "state.safetensors").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_every_flipped_byte_of_a_published_folder_is_found(tmp_path: Path) -> None:
    _save(tmp_path / "a", b"0123456789")
    for file in (tmp_path / "a").iterdir():
        content = file.read_bytes()
        for place in range(len(content)):
            file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(DamageError):
                verify_folder(tmp_path / "a")
        file.write_bytes(content)
    verify_folder(tmp_path / "a")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b"])
def test_a_manifest_cannot_lead_out_of_its_folder(tmp_path: Path, name: str) -> None:
    _save(tmp_path / "a", b"first")
    (tmp_path / "a" / "manifest.json").write_text(json.dumps({"files": {name: {"bytes": 1, "sha256": "0"}}}))
    with pytest.raises(DamageError, match="leads elsewhere"):
        verify_folder(tmp_path / "a")


def test_missing_added_and_linked_files_are_found(tmp_path: Path) -> None:
    _save(tmp_path / "a", b"first")
    (tmp_path / "a" / "more").touch()
    with pytest.raises(DamageError, match="more"):
        verify_folder(tmp_path / "a")
    (tmp_path / "a" / "more").unlink()
    (tmp_path / "a" / "state.json").unlink()
    with pytest.raises(DamageError, match=r"state\.json"):
        verify_folder(tmp_path / "a")
    (tmp_path / "elsewhere").write_text("{}")
    (tmp_path / "a" / "state.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamageError, match="no file"):
        verify_folder(tmp_path / "a")


def test_what_dead_writers_left_is_removed(tmp_path: Path) -> None:
    _save(tmp_path / "a", b"first")
    code = (
        "import sys; from pathlib import Path; import os; from tl_experiments.runtime.files import published_folder\n"
    )
    code += "with published_folder(Path(sys.argv[1])) as making: (making / 'x').touch(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "b")], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_is_replaced_where_two_cannot_be_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "exchanged", lambda *_: False)
    _save(tmp_path / "a", b"first")
    _save(tmp_path / "a", b"second")
    verify_folder(tmp_path / "a")
    assert (tmp_path / "a" / "state.safetensors").read_bytes() == b"second"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("refused", [1, 2])
def test_the_old_folder_comes_back_where_the_new_one_is_refused_its_name(
    refused: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(tmp_path / "a", b"first")
    real, calls = os.replace, []

    def replace(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == refused:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        real(source, target)

    monkeypatch.setattr(files, "exchanged", lambda *_: False)
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="No space left"):
        _save(tmp_path / "a", b"second")
    verify_folder(tmp_path / "a")
    assert (tmp_path / "a" / "state.safetensors").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_manifest_that_is_no_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    _save(tmp_path / "a", b"first")
    (tmp_path / "a" / "manifest.json").unlink()
    os.mkfifo(tmp_path / "a" / "manifest.json")
    with pytest.raises(DamageError, match="never finished"):
        verify_folder(tmp_path / "a")


@pytest.mark.parametrize("torn", ["", '{"number"', '{"number": 1}'])
def test_lines_are_added_after_half_a_line(torn: str, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_lines(path, "first\n")
    with path.open("a") as file:
        file.write(torn)
    append_lines(path, "second\nthird\n")
    assert path.read_text().splitlines() == ["first", *([torn] if torn else []), "second", "third"]
