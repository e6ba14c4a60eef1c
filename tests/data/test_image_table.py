"""Tables of images are read as their makers meant them; what is wrong with one is told in one line, with its rows."""

import tracemalloc
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tl_experiments.data.image_table import iter_image_paths, read_image_table
from tl_experiments.runtime.errors import DataError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_table_is_read_as_spreadsheets_write_it(path: Path) -> None:
    """A byte order mark, Windows' line ends, blank lines, spaces, quotes, and columns that mean nothing here."""
    table = read_image_table(
        write(
            path,
            b'\xef\xbb\xbflabel ,note, image_path,split\r\ncat,x,a.jpg,Train\r\n\r\n dog ,"y","b, 1.jpg",valid\r\n',
        )
    )
    assert table.image_paths == ("a.jpg", "b, 1.jpg")
    assert table.labels == ("cat", "dog")
    assert table.splits == ("train", "val")
    assert table.rows.tolist() == [2, 4]


def test_csv_and_parquet_say_the_same(path: Path) -> None:
    frame = pd.DataFrame(
        {"image_path": ["a", "b", "c"], "label": pd.Categorical(["x", "y", "x"]), "split": ["train", "test", "train"]}
    )
    frame.to_csv(path, index=False)
    frame.to_parquet(path.with_suffix(".parquet"))
    tables = [read_image_table(path), read_image_table(path.with_suffix(".parquet"))]
    assert [(table.image_paths, table.labels, table.splits) for table in tables] == [
        (("a", "b", "c"), ("x", "y", "x"), ("train", "test", "train"))
    ] * 2


def test_numbers_are_classes_called_by_their_digits(path: Path) -> None:
    pd.DataFrame({"image_path": ["a", "b"], "label": [7, 10]}).to_parquet(path.with_suffix(".parquet"))
    assert read_image_table(path.with_suffix(".parquet")).labels == ("7", "10")


def test_numbers_that_hugging_face_named_have_these_names(path: Path) -> None:
    features = b'{"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}'
    table = pa.table({"image_path": ["a", "b"], "label": [1, 0]}).replace_schema_metadata({b"huggingface": features})
    pq.write_table(table, path.with_suffix(".parquet"))
    assert read_image_table(path.with_suffix(".parquet")).labels == ("dog", "cat")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty; expected a header line, image_path,label"),
        ("image_path,label\n\n", "no row below its header; expected one for each image"),
        ("path,label\na,b\n", "no column image_path (there is path, label)"),
        ("image_path;label\na;b\n", "(there is image_path;label); values are to be separated by commas"),
        ("image_path,label,label\na,b,c\n", "two columns are called 'label'; expected each name once"),
        ("image_path,label\na,b\na, b.jpg,c\n", ', line 3: 3 values where the header has 2 columns; put values that'),
        ("image_path,label\n,b\na,\n ,c\n", "image_path is empty in line 2, 4; label is empty in line 3"),
        ("image_path,label\n" + "a,\n" * 9, "label is empty in line 2, 3, 4, 5, 6 and 4 more"),
        ("image_path,label,split\na,b,dev\n", "split 'dev' is none of train, val, valid, validation, test in line 2"),
        ("image_path,label\na.jpg,x\nb/../a.jpg,y\n", "b/../a.jpg is 'x' in line 2 and 'y' in line 3; expected one"),
        ("image_path,label,split\na.jpg,x,train\n./a.jpg,x,test\n", "is 'train' in line 2 and 'test' in line 3"),
        ("image_path,label\na\0.jpg,x\n", "image_path holds a null byte in line 2"),
        ('image_path,label\n"a,x\n', "not CSV (unexpected end of data)"),
        ("image_path,label\nä.jpg,x\n".encode("latin-1"), "not text in UTF-8; save it as that"),
        ("image_path,label\na.jpg,x\n".encode("utf-16"), "not text in UTF-8; save it as that"),
        ('image_path,label\n"a\n\x1b[1m",\n', "label is empty in line 3"),
        ('"image\x1b\npath",label\na,b\n', r"there is image\x1b\npath, label"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(path: Path, text: str | bytes, told: str) -> None:
    with pytest.raises(DataError) as refused:
        read_image_table(write(path, text))
    assert str(refused.value).startswith(str(path))
    assert told in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"image_path": ["a"], "label": [1.5]}, "label holds double; expected text, or whole numbers"),
        ({"image_path": [b"a"], "label": ["x"]}, "image_path holds binary; expected text"),
        ({"image_path": ["a", "b"], "label": ["x", None]}, "label is empty in row 1"),
    ],
)
def test_what_is_wrong_in_parquet_is_told_by_row(path: Path, columns: dict[str, list], told: str) -> None:
    path = path.with_suffix(".parquet")
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DataError, match=told):
        read_image_table(path)


def test_a_damaged_parquet_file_is_named(path: Path) -> None:
    path = path.with_suffix(".parquet")
    pd.DataFrame({"image_path": [f"{i}.jpg" for i in range(1000)], "label": ["x", "y"] * 500}).to_parquet(path)
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], content[:10] + bytes(2000) + content[2010:]):
        with pytest.raises(DataError, match=r"table\.parquet: (not a Parquet file|cannot be read from row 0 on) \("):
            read_image_table(write(path, damaged))


def test_what_is_no_table_is_not_opened(tmp_path: Path) -> None:
    for name, told in (("images.txt", "expected a table, FILE.csv or FILE.parquet"), ("gone.csv", "no such file")):
        with pytest.raises(DataError, match=told):
            read_image_table(tmp_path / name)


def test_paths_come_one_by_one_in_constant_memory(path: Path) -> None:
    """A label is not asked for."""
    peaks = []
    for count in (1_000, 30_000):
        write(path, "image_path\n" + "".join(f"folder/of/images/{index:09d}.jpg\n" for index in range(count)))
        tracemalloc.start()
        found = sum(1 for _ in iter_image_paths(path))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found == count
    assert peaks[1] < peaks[0] + 100_000


def test_a_fault_in_the_last_row_is_told_before_the_first_path_is_given(path: Path) -> None:
    with pytest.raises(DataError, match="image_path is empty in line 4"):
        next(iter_image_paths(write(path, 'image_path\na\nb\n""\n')))
