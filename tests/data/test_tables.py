"""Images that a table lists or holds become a dataset, the same as from a folder; a table may come from anybody."""

import csv
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.opening import OPTIONS, opened
from tests.watching import Notes
from tl_experiments.data import row_groups
from tl_experiments.data.dataset_images import DatasetImages, load_dataset_images
from tl_experiments.data.decoding import ImageError
from tl_experiments.data.source import Dataset, Split
from tl_experiments.data.tables import csv_table, parquet_table
from tl_experiments.data.transforms import Canvas
from tl_experiments.runtime.errors import DataError

CANVAS = Canvas(size=8, crop=8, interpolation="bilinear")
COUNTS = {"class 2": 12, "class 10": 12}
Write = Callable[..., Path]


@pytest.fixture
def root(make_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """A folder of images, which tables list."""
    return make_folder(COUNTS, tmp_path / "root")


def rows_of() -> list[list[str]]:
    return [[f"{name}/{index}.png", name] for name, count in COUNTS.items() for index in range(count)]


def write_csv(path: Path, rows: Sequence[Sequence[str]], *columns: str) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns or ("image_path", "label"), *rows])
    return path


def write_parquet(path: Path, *, group: int = 5, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def open_csv(path: Path, **options: Any) -> Dataset:
    return csv_table(root=str(path), **{**OPTIONS, **options})


def open_parquet(path: Path, **options: Any) -> Dataset:
    return parquet_table(root=str(path), **{**OPTIONS, **options})


def names(split: Split) -> list[str]:
    return [split.source.name(int(index)) for index in split.indices]


def loaded(dataset: Dataset, *, workers: int = 0, notes: Notes | None = None) -> DatasetImages:
    return load_dataset_images(
        dataset,
        canvas=CANVAS,
        workers=workers,
        memory_bytes=10**9,
        store=None,
        checks=None,
        watch=notes or Notes(),
    )


@pytest.fixture
def embedded(root: Path) -> Path:
    """A table that holds the images, in row groups of five."""
    rows = rows_of()
    contents = [(root / path).read_bytes() for path, _ in rows]
    return write_parquet(root / "images.parquet", image=contents, label=[label for _, label in rows])


def test_a_folder_and_its_tables_are_the_same_dataset(root: Path, embedded: Path) -> None:
    """Content, classes in natural order, and splits: whatever lists the images, in the same order."""
    rows = [[path, label] for name in COUNTS for path, label in sorted(rows_of()) if label == name]
    paths, labels = zip(*rows, strict=True)
    as_struct = [{"bytes": (root / path).read_bytes(), "path": "x.png"} for path in paths]
    datasets = [
        opened(root),
        open_csv(write_csv(root / "t.csv", rows)),
        open_parquet(write_parquet(root / "t.parquet", image_path=paths, label=labels)),
        open_parquet(write_parquet(embedded, image=[cell["bytes"] for cell in as_struct], label=labels)),
        open_parquet(write_parquet(root / "struct.parquet", image=as_struct, label=labels)),
    ]
    assert {dataset.class_names for dataset in datasets} == {("class 2", "class 10")}
    assert len({loaded(dataset).fingerprint for dataset in datasets}) == 1
    assert names(datasets[0].test) == names(datasets[1].test) == names(datasets[2].test)
    assert names(datasets[3].test) == [f"images/{index}" for index in datasets[3].test.indices]


def test_given_splits_are_used_and_missing_ones_split_off(root: Path) -> None:
    rows = [[path, label, "test" if path.endswith("/1.png") else "train"] for path, label in rows_of()]
    dataset = open_csv(write_csv(root / "t.csv", rows, "image_path", "label", "split"))
    assert sorted(names(dataset.test)) == ["class 10/1.png", "class 2/1.png"]
    assert [len(dataset.train), len(dataset.val)] == [16, 6]
    assert not {*names(dataset.test)} & {*names(dataset.train), *names(dataset.val)}
    small = open_csv(root / "t.csv", train_size=4)
    assert {*names(small.train)} < {*names(dataset.train)}
    assert names(small.val) == names(dataset.val)


def test_labels_belong_to_the_images(root: Path, embedded: Path) -> None:
    dataset = open_parquet(embedded)
    for split in (dataset.train, dataset.val, dataset.test):
        for index, label in zip(split.indices.tolist(), split.labels.tolist(), strict=True):
            path, name = rows_of()[index]
            assert dataset.class_names[label] == name
            assert split.source.content(index) == (root / path).read_bytes()


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([["class 2/1.png", "a"], ["class 2/2.png", "a"]], r"t: found one class \(a\)"),
        ([["class 2/1.png", "a"], ["class 2/2.png", "b"]], r"'a' has too few images to split off a test set"),
        ([["1.png", "a"], ["2.png", "b"]], r"none of its images is there, such as .*/root/1\.png; paths are relative"),
    ],
)
def test_a_table_that_cannot_be_learnt_from_is_refused(root: Path, rows: list[list[str]], told: str) -> None:
    with pytest.raises(DataError, match=told):
        open_csv(write_csv(root / "t.csv", rows))


def test_every_class_and_split_is_found_in_train(root: Path) -> None:
    columns = ("image_path", "label", "split")
    rows = [[path, label, "train"] for path, label in rows_of()]
    with pytest.raises(DataError, match=r"val has images of 'cow', of which train has none; add or remove them"):
        open_csv(write_csv(root / "t.csv", [*rows[:-1], [rows[-1][0], "cow", "val"]], *columns))
    with pytest.raises(DataError, match=r"no row is of split train; expected some"):
        open_csv(write_csv(root / "t.csv", [[path, label, "val"] for path, label, _ in rows], *columns))


@pytest.mark.parametrize("kind", ["up", "absolute", "through a folder's link", "back through it"])
def test_paths_do_not_leave_the_folder_by_themselves(
    root: Path, make_folder: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    """A table that somebody else wrote reads no file of yours."""
    disk = make_folder({"disk": 3}, tmp_path) / "disk"
    (root / "away").symlink_to(disk)
    outside = {
        "up": "class 2/../../disk/0.png",
        "absolute": str(disk / "0.png"),
        "through a folder's link": "away/0.png",
        "back through it": "away/../disk/0.png",
    }[kind]
    table = write_csv(root / "t.csv", [*rows_of(), [outside, "class 2"]])
    with pytest.raises(
        DataError, match=r"t\.csv, line 26: .*0\.png leads out of the folder of the table; .*follow_links"
    ):
        open_csv(table)
    followed = open_csv(table, follow_links=True).train.source
    assert followed.content(24) == (disk / "0.png").read_bytes()


def test_paths_that_stay_inside_may_be_written_in_any_way(root: Path) -> None:
    (root / "link").symlink_to(root / "class 2")
    inside = ["class 10/../class 2/0.png", str(root / "class 2" / "1.png"), "./class 2//2.png", "link/3.png"]
    rows = [*([path, "class 2"] for path in inside), *rows_of()[12:]]
    source = open_csv(write_csv(root / "t.csv", rows)).train.source
    for index in range(4):
        assert source.content(index) == (root / "class 2" / f"{index}.png").read_bytes()


def test_a_link_that_leaves_the_folder_is_a_bad_image(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes((root / "class 2" / "0.png").read_bytes())
    (root / "class 2" / "0.png").unlink()
    (root / "class 2" / "0.png").symlink_to(secret)
    dataset = open_csv(write_csv(root / "t.csv", rows_of()))
    with pytest.raises(ImageError, match="the link leaves the folder"):
        dataset.train.source.content(0)


def test_bad_images_are_named_and_left_out_if_that_is_asked(root: Path) -> None:
    os.mkfifo(root / "pipe.png")
    (root / "class 2" / "0.png").write_bytes(b"no image")
    long = "x" * 300 + ".png"
    rows = [*rows_of(), *([path, "class 2"] for path in ("pipe.png", "gone/1.png", "class 10", long))]
    table = write_csv(root / "t.csv", rows)
    with pytest.raises(DataError) as refused:
        loaded(open_csv(table))
    first, *lines = str(refused.value).splitlines()
    assert first.startswith(f"5 of 28 images cannot be used; replace or remove them (tlx scan {table} lists all), or ")
    for told in ("pipe.png: a pipe", "gone/1.png: cannot be read (No such", "class 10: a folder", "x.png: cannot be"):
        assert sum(told in line for line in lines) == 1, told
    skipped = loaded(open_csv(table, on_bad_image="skip")).skipped
    assert {image.name for image in skipped} == {"class 2/0.png", "pipe.png", "gone/1.png", "class 10", long}


def test_images_in_a_table_that_are_bad_are_named_by_their_row(root: Path) -> None:
    contents = [(root / path).read_bytes() for path, _ in rows_of()]
    contents[3], contents[20] = None, contents[20][:40]
    cells = [content and {"bytes": content, "path": None} for content in contents]
    table = write_parquet(root / "e.parquet", image=cells, label=[label for _, label in rows_of()])
    skipped = loaded(open_parquet(table, on_bad_image="skip")).skipped
    assert {(image.name, image.kind) for image in skipped} == {("e/3", "empty"), ("e/20", "undecodable")}
    told = "e.parquet, row 3: the row holds no bytes of an image; fill or remove it"
    with pytest.raises(ImageError, match=told):
        open_parquet(table).train.source.image(3)


def test_row_groups_are_read_one_at_a_time_and_few_are_kept(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    plain = pq.ParquetFile.read_row_group

    def read_row_group(self: pq.ParquetFile, group: int, **options: Any) -> pa.Table:
        read.append(group)
        return plain(self, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read_row_group)
    source = open_parquet(embedded).train.source
    assert read == []
    for index in range(24):
        source.content(index)
    assert read == [0, 1, 2, 3, 4]
    monkeypatch.setattr(row_groups, "_KEPT_BYTES", 0)
    source = open_parquet(embedded).train.source
    for index in (0, 4, 23, 20, 1):
        source.content(index)
    assert read[5:] == [0, 4, 0], "one is kept, whatever its size: the last"


@pytest.mark.usefixtures("small_chunks")
def test_a_source_of_row_groups_goes_to_workers(embedded: Path) -> None:
    source = open_parquet(embedded).train.source
    before = source.content(7)
    assert pickle.loads(pickle.dumps(source)).content(7) == before
    assert loaded(open_parquet(embedded), workers=2).fingerprint == loaded(open_parquet(embedded)).fingerprint


def test_row_groups_too_large_to_be_read_are_refused(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "_MOST_BYTES", 100)
    with pytest.raises(DataError, match=r"row group 0 holds .* write the file with row_group_size=100"):
        open_parquet(embedded)


def test_an_image_column_of_something_else_is_refused(root: Path) -> None:
    table = write_parquet(root / "e.parquet", image=["a.png", "b.png"], label=["a", "b"])
    with pytest.raises(DataError, match="image holds string; expected the bytes of image files"):
        open_parquet(table)


def test_an_option_reads_its_own_kind_of_file(embedded: Path) -> None:
    with pytest.raises(DataError, match=r"^dataset\.root=.*images\.parquet: expected a file called FILE\.csv"):
        open_csv(embedded)


def test_a_table_that_changes_during_a_run_is_noticed(root: Path) -> None:
    dataset = open_csv(write_csv(root / "t.csv", rows_of()))
    images = loaded(dataset)
    for path in root.rglob("*.png"):
        path.write_bytes((root / "class 2" / "1.png").read_bytes())
    with pytest.raises(DataError, match="has changed since the run began"):
        list(images.train.batches([np.arange(len(images.train))]))
