"""Which images a source means, what they are called, and that they are found one by one."""

import io
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tl_experiments.inference.image_list import list_images
from tl_experiments.runtime.errors import DataError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()


def names(source: str) -> list[str]:
    return [listed.name for listed in list_images(source)]


def test_a_folder_is_all_visible_images_in_it_by_the_paths_that_can_be_opened_from_here() -> None:
    touch(
        "in/b/2.JPG", "in/b/10.png", "in/a/x/deep.webp", "in/z.bmp", "in/notes.txt", "in/.hidden.jpg", "in/.git/a.jpg"
    )
    assert names("in") == ["in/z.bmp", "in/a/x/deep.webp", "in/b/10.png", "in/b/2.JPG"]
    assert names("./in/") == ["./in/z.bmp", "./in/a/x/deep.webp", "./in/b/10.png", "./in/b/2.JPG"]
    assert all(Path(name).is_file() for name in names("in"))


def test_links_are_followed_and_circles_are_not() -> None:
    touch("in/a/1.jpg", "elsewhere/2.jpg")
    Path("in/a/up").symlink_to(Path("in").resolve())
    Path("in/b").symlink_to(Path("elsewhere").resolve())
    Path("in/loop").symlink_to("loop")
    Path("in/3.jpg").symlink_to(Path("elsewhere/2.jpg").resolve())
    Path("in/gone.jpg").symlink_to("nowhere")
    assert names("in") == ["in/3.jpg", "in/gone.jpg", "in/a/1.jpg", "in/b/2.jpg"]
    assert names("in/**/*.jpg") == names("in")


def test_a_folder_that_cannot_be_read_is_one_bad_row(monkeypatch: pytest.MonkeyPatch) -> None:
    touch("in/a/1.jpg", "in/closed/2.jpg")
    close(monkeypatch, "in/closed")
    found = list(list_images("in"))
    assert [listed.name for listed in found] == ["in/a/1.jpg", "in/closed"]
    assert found[1].fault == "the folder cannot be read (Permission denied)"
    with pytest.raises(DataError, match=r"^in/closed: the folder cannot be read .Permission denied.$"):
        list_images("in/closed")


def close(monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    """Who tests as root may read everything."""
    scandir = os.scandir

    def refusing(path: str) -> Iterator[os.DirEntry[str]]:
        if path == closed:
            raise PermissionError(13, os.strerror(13), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)


def test_folders_are_read_when_their_images_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    touch(*(f"in/{folder}/{image}.jpg" for folder in range(9) for image in range(3)))
    read, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: read.append(path) or scandir(path))
    assert len(list(islice(list_images("in"), 4))) == 4
    assert read == ["in", "in/0", "in/1"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("in/*.jpg", ["in/1.jpg", "in/2.jpg"]),
        ("in/*", ["in/1.jpg", "in/2.jpg", "in/notes.txt"]),
        ("in/*/*.jpg", ["in/a/1.jpg", "in/b/1.jpg"]),
        ("in/[!a]/?.jpg", ["in/b/1.jpg"]),
        ("**/1.jpg", ["in/1.jpg", "in/a/1.jpg", "in/b/1.jpg", "in/b/c/1.jpg"]),
        ("./in/b/**", ["./in/b/1.jpg", "./in/b/c/1.jpg"]),
        ("in/**/c/*.jpg", ["in/b/c/1.jpg"]),
        ("in/.*.jpg", ["in/.hidden.jpg"]),
    ],
)
def test_a_pattern_is_what_a_shell_would_find(pattern: str, expected: list[str], here: Path) -> None:
    touch("in/1.jpg", "in/2.jpg", "in/notes.txt", "in/.hidden.jpg", "in/a/1.jpg", "in/b/1.jpg", "in/b/c/1.jpg")
    assert names(pattern) == expected
    if not pattern.startswith("."):
        assert names(f"{here}/{pattern}") == [f"{here}/{name}" for name in expected]


def test_a_file_whose_name_has_wildcards_is_that_file() -> None:
    touch("in/[1].jpg", "in/1.jpg", "in/scan")
    assert names("in/[1].jpg") == ["in/[1].jpg"]
    assert names("in/scan") == ["in/scan"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_tables_paths_are_called_as_they_are_written_and_start_at_the_table(suffix: str, here: Path) -> None:
    written = ["b.jpg", "sub/a.jpg", str(here / "c.jpg")]
    Path("tables").mkdir()
    table = Path(f"tables/list.{suffix}")
    if suffix == "csv":
        table.write_text("id,image_path\n" + "".join(f"{at},{path}\n" for at, path in enumerate(written)))
    else:
        pq.write_table(pa.table({"image_path": written, "id": [1, 2, 3]}), table)
    found = list(list_images(str(table)))
    assert [listed.name for listed in found] == written
    assert [listed.path for listed in found] == ["tables/b.jpg", "tables/sub/a.jpg", str(here / "c.jpg")]


def test_standard_input_has_a_path_a_line_whatever_its_bytes() -> None:
    found = list(list_images("-", stdin=io.BytesIO(b"a b.jpg\r\n\nc\xff.jpg\n d.jpg")))
    assert [listed.path for listed in found] == ["a b.jpg", os.fsdecode(b"c\xff.jpg"), " d.jpg"]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("gone", "^gone: no such file or folder; expected a file, folder"),
        ("gone/*.jpg", r"^gone/\*\.jpg: no file matches"),
        ("empty", "^empty: no images in this folder; expected .bmp"),
        ("empty.csv", "^empty.csv: "),
        ("-", "^-: no path came on standard input"),
    ],
)
def test_a_source_without_images_is_refused_in_one_line(source: str, told: str) -> None:
    touch("empty/notes.txt")
    Path("empty.csv").write_text("image_path\n")
    with pytest.raises(DataError, match=told) as caught:
        list_images(source, stdin=io.BytesIO(b"\n"))
    assert "\n" not in str(caught.value)
