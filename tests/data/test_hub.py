"""Hugging Face's datasets become ours whatever way they were saved: by bytes that are not decoded, and without code."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Image, Value

from tests.data.opening import OPTIONS
from tests.watching import Notes
from tl_experiments.data.dataset_images import DatasetImages, load_dataset_images
from tl_experiments.data.decoding import ImageError
from tl_experiments.data.hub import hf_dataset
from tl_experiments.data.source import Dataset
from tl_experiments.data.transforms import Canvas
from tl_experiments.runtime.errors import DataError, SettingError

CANVAS = Canvas(size=8, crop=8, interpolation="bilinear")
NAMES = ["zebra", "ant"]  # in an order of their own
CLASSES = ClassLabel(names=NAMES)


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the Hub, and none writes into the user's caches."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")


@pytest.fixture
def contents(make_folder: Callable[..., Path], tmp_path: Path) -> list[bytes]:
    """The bytes of 24 PNG files: 12 zebras, 12 ants."""
    root = make_folder(dict.fromkeys(NAMES, 12), tmp_path / "files")
    return [(root / name / f"{index}.png").read_bytes() for name in NAMES for index in range(12)]


def rows(contents: list[bytes], labels: list[Any], kind: Any = CLASSES, **others: list) -> datasets.Dataset:
    features = Features({"picture": Image(), "kind": kind, **dict.fromkeys(others, Value("string"))})
    cells = [{"bytes": content, "path": None} for content in contents]
    return datasets.Dataset.from_dict({"picture": cells, "kind": labels, **others}, features=features)


@pytest.fixture
def train(contents: list[bytes]) -> datasets.Dataset:
    return rows(contents, [0] * 12 + [1] * 12)


def opened(root: Path | None, **options: Any) -> Dataset:
    plain = dict.fromkeys(("name", "subset", "revision", "image_column", "label_column"))
    return hf_dataset(root=root and str(root), **{**plain, **OPTIONS, **options})


def loaded(dataset: Dataset, *, workers: int = 0) -> DatasetImages:
    return load_dataset_images(
        dataset, canvas=CANVAS, workers=workers, memory_bytes=10**9, store=None, checks=None, watch=Notes()
    )


def test_bytes_stay_as_they_are_however_they_were_saved(
    train: datasets.Dataset, contents: list[bytes], tmp_path: Path
) -> None:
    train.save_to_disk(tmp_path / "disk")
    datasets.DatasetDict({"train": train}).save_to_disk(tmp_path / "dict")
    (tmp_path / "parquet").mkdir()
    train.to_parquet(tmp_path / "parquet" / "train-00000-of-00001.parquet")
    found = [opened(tmp_path / kind) for kind in ("disk", "dict", "parquet")]
    for dataset in found:
        assert dataset.class_names == ("zebra", "ant"), "the dataset's own order"
        assert [dataset.train.source.content(index) for index in range(24)] == contents
        assert dataset.train.source.labels.tolist() == [0] * 12 + [1] * 12
    assert len({loaded(dataset).fingerprint for dataset in found}) == 1
    assert [dataset.name for dataset in found] == ["disk", "dict", "parquet"]


@pytest.mark.usefixtures("small_chunks")
def test_a_folder_of_images_is_read_from_its_files(contents: list[bytes], tmp_path: Path) -> None:
    dataset = opened(tmp_path / "files")
    assert dataset.class_names == ("ant", "zebra")
    train = dataset.train
    assert sorted(train.source.content(index) for index in range(len(train.source))) == sorted(contents)
    assert loaded(dataset, workers=2).fingerprint == loaded(dataset).fingerprint


def test_splits_are_found_by_their_names(contents: list[bytes], tmp_path: Path) -> None:
    """Others are ignored, and one whose labels are secret is none."""
    parts = {
        "train": rows(contents[2:22], [0] * 10 + [1] * 10),
        "validation": rows([contents[0]], [0]),
        "test": rows(contents[22:], [-1, -1]),
        "extra": rows([contents[1]], [0]),
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "dict")
    dataset = opened(tmp_path / "dict")
    assert [len(dataset.train), len(dataset.val), len(dataset.test)] == [16, 1, 4]
    assert dataset.val.source.name(0) == "val/0"
    assert dataset.test.source.name(19) == "train/19"


def test_text_and_numbers_are_classes_if_they_are_asked_for(contents: list[bytes], tmp_path: Path) -> None:
    for at, (kind, labels) in enumerate([("string", ["b", "a"]), ("int64", [10, 9])]):
        rows(contents, [labels[0]] * 12 + [labels[1]] * 12, Value(kind)).save_to_disk(tmp_path / str(at))
        with pytest.raises(SettingError, match=r"label_column=null: no column is of type ClassLabel \(there is pi"):
            opened(tmp_path / str(at))
        dataset = opened(tmp_path / str(at), label_column="kind")
        assert dataset.class_names == (str(labels[1]), str(labels[0]))
        assert dataset.train.source.labels.tolist() == [1] * 12 + [0] * 12


def test_classes_that_no_image_has_are_none(contents: list[bytes], tmp_path: Path) -> None:
    rows(contents, [0] * 12 + [2] * 12, ClassLabel(names=["zebra", "yak", "ant"])).save_to_disk(tmp_path / "disk")
    dataset = opened(tmp_path / "disk")
    assert dataset.class_names == ("zebra", "ant")
    assert set(dataset.test.labels) == {0, 1}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"image_column": "kind"},
            "image_column=kind: no column of that name can be of type Image (there is picture: Image, kind: Cl",
        ),
        (
            {"label_column": "gone"},
            "label_column=gone: no column of that name can be of type ClassLabel (there is picture: ",
        ),
    ],
)
def test_columns_that_do_not_fit_are_named(
    train: datasets.Dataset, tmp_path: Path, options: dict[str, str], told: str
) -> None:
    train.save_to_disk(tmp_path / "disk")
    with pytest.raises(SettingError) as refused:
        opened(tmp_path / "disk", **options)
    assert told in str(refused.value)


def test_of_several_columns_one_is_to_be_chosen(contents: list[bytes], tmp_path: Path) -> None:
    both = rows(contents, [0] * 12 + [1] * 12).to_dict()
    features = Features({"picture": Image(), "mask": Image(), "kind": CLASSES})
    two = datasets.Dataset.from_dict({**both, "mask": both["picture"][::-1]}, features=features)
    two.save_to_disk(tmp_path / "disk")
    with pytest.raises(SettingError, match=r"image_column=null: several columns are of type Image .*; expected dat"):
        opened(tmp_path / "disk")
    assert opened(tmp_path / "disk", image_column="mask").train.source.content(0) == contents[-1]


def test_bytes_that_nobody_called_images_are_images_if_that_is_asked(contents: list[bytes], tmp_path: Path) -> None:
    for name, cells in (("bytes", contents), ("struct", [{"bytes": content, "path": "x"} for content in contents])):
        (tmp_path / name).mkdir()
        table = pa.table({"image": cells, "label": ["a"] * 12 + ["b"] * 12})
        pq.write_table(table, tmp_path / name / "train.parquet")
        source = opened(tmp_path / name, image_column="image", label_column="label").train.source
        assert [source.content(index) for index in range(24)] == contents


def test_what_cannot_be_learnt_from_is_refused(contents: list[bytes], train: datasets.Dataset, tmp_path: Path) -> None:
    rows(contents, [0] * 12 + [None] * 12).save_to_disk(tmp_path / "unlabelled")
    datasets.DatasetDict({"test": train}).save_to_disk(tmp_path / "test")
    datasets.DatasetDict({"val": train, "train": train, "valid": train}).save_to_disk(tmp_path / "twice")
    (tmp_path / "empty").mkdir()
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    told = {
        "unlabelled": "12 rows of train have no label in kind: 12, 13, 14, 15, 16 ...",
        "test": "no split is called train (there is test)",
        "twice": "two splits are val (there is val, train, valid)",
        "empty": "empty: cannot be read as a dataset (",
        "script": "script: cannot be read as a dataset (Dataset scripts are no longer supported, but found script.py)",
        "gone": "gone: no such folder",
    }
    for folder, line in told.items():
        with pytest.raises(DataError) as refused:
            opened(tmp_path / folder)
        assert line in str(refused.value)
        assert str(refused.value).isprintable()
    assert not (tmp_path / "ran").exists()


def test_bad_images_are_named_by_their_rows(contents: list[bytes], tmp_path: Path) -> None:
    contents[5] = contents[5][:40]
    saved = rows(contents, [0] * 12 + [1] * 12)
    cells = [None if at == 7 else cell for at, cell in enumerate(saved.to_dict()["picture"])]
    features = saved.features
    datasets.Dataset.from_dict({"picture": cells, "kind": saved["kind"]}, features=features).save_to_disk(
        tmp_path / "d"
    )
    skipped = loaded(opened(tmp_path / "d", on_bad_image="skip")).skipped
    assert {(image.name, image.kind) for image in skipped} == {("train/5", "undecodable"), ("train/7", "empty")}
    with pytest.raises(DataError, match=r"2 of 24 images cannot be used; replace or remove them, or leave them out by"):
        loaded(opened(tmp_path / "d"))


def test_a_dataset_of_somebody_else_reads_no_file_of_yours(contents: list[bytes], tmp_path: Path) -> None:
    """Rows may be paths; by themselves they lead into the dataset alone."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(contents[0])
    inside = tmp_path / "rows" / "inside.png"
    inside.parent.mkdir()
    inside.write_bytes(contents[1])
    faults = {
        str(secret): "it is not in the dataset, but at /.*secret.png; allow such paths by dataset.follow_links=true",
        str(inside.parent / ".." / "secret.png"): "it is not in the dataset",
        "gone.png": "gone.png cannot be read",
        "a\0b.png": "cannot be read",
    }
    paths = [str(inside), *faults] * 6
    cells = [{"bytes": None, "path": path} for path in paths]
    schema = Features({"picture": Image(), "kind": CLASSES}).arrow_schema
    table = pa.table({"picture": cells, "kind": [0] * 15 + [1] * 15}, schema=schema)
    pq.write_table(table, inside.parent / "train.parquet")
    source = opened(inside.parent).train.source
    assert source.content(0) == contents[1]
    for index, told in enumerate(faults.values(), start=1):
        with pytest.raises(ImageError, match=rf"^train/{index}: .*{told}"):
            source.content(index)
    assert opened(inside.parent, follow_links=True).train.source.content(1) == contents[0]


def test_a_source_goes_to_workers(train: datasets.Dataset, contents: list[bytes], tmp_path: Path) -> None:
    train.save_to_disk(tmp_path / "disk")
    source = opened(tmp_path / "disk").train.source
    assert pickle.loads(pickle.dumps(source)).content(3) == contents[3]


def test_without_a_network_one_line_says_so() -> None:
    with pytest.raises(DataError) as refused:
        opened(None, name="somebody/pets")
    assert str(refused.value).startswith("dataset.name=somebody/pets: cannot be read as a dataset (Couldn't reach ")
    assert str(refused.value).endswith("fetch it where there is a network, or give a folder by dataset.root")


def test_a_folder_is_not_taken_for_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match=r"^dataset\.name=pets: a folder .* expected dataset\.root=pets for it$"):
        opened(None, name="pets")


def test_without_the_library_one_line_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"^dataset=hf needs the library datasets: pip install 'tl_experiments\[hf\]'$"):
        opened(tmp_path)
