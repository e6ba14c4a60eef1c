"""A published file is whole or not there, whoever reads it and whenever its writer dies."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tl_experiments.runtime.files import publish_text

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
