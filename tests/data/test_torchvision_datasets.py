"""Torchvision's files are read from its layout; without them one error says what to do."""

import gzip
import struct
import urllib.request
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from tl_experiments.data.source import Dataset
from tl_experiments.data.torchvision_datasets import torchvision_dataset
from tl_experiments.runtime.errors import DataError, SettingError


def loaded(root: Path, *, name: str = "fashion_mnist", download: bool = False) -> Dataset:
    return torchvision_dataset(
        name=name, root=str(root), download=download, train_size=None, val_fraction=0.25, split_seed=0, crop_pct=None
    )


def idx(array: np.ndarray) -> bytes:
    """The file format of MNIST: a magic number that holds type and rank, the shape, the bytes."""
    return struct.pack(">I", 0x0800 + array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def fashion_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {}
    for part, count in (("train", 80), ("t10k", 20)):
        files[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        files[f"{part}-labels-idx1-ubyte"] = idx((np.arange(count) % 10).astype(np.uint8))
    return files


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("packed", [False, True], ids=["idx", "gz"])
def test_fashion_mnist_from_files_put_there_by_hand(tmp_path, fashion_files, packed):
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in fashion_files.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    dataset = loaded(tmp_path)
    assert [len(dataset.train), len(dataset.val), len(dataset.test)] == [60, 20, 20]
    assert dataset.class_names[:2] == ("T-shirt/top", "Trouser")
    pixels = np.frombuffer(fashion_files["t10k-images-idx3-ubyte"][16:], dtype=np.uint8).reshape(-1, 28, 28)
    np.testing.assert_array_equal(np.asarray(dataset.test.source.image(3))[..., 1], pixels[3])
    assert dataset.test.source.name(3) == "test/3"
    assert not list(folder.glob("*.part"))


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("fashion_mnist", "train-images-idx3-ubyte.gz"),
    ],
)
def test_a_failed_download_says_what_to_do(tmp_path, name, url):
    with pytest.raises(DataError) as caught:
        loaded(tmp_path / "data", name=name, download=True)
    message = str(caught.value)
    assert "\n" not in message
    for part in (url, "http", str(tmp_path / "data"), "no route to host", "dataset=digits"):
        assert part in message


def test_without_download_the_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"dataset\.download=false") as caught:
        loaded(tmp_path / "data")
    assert str(tmp_path / "data" / "FashionMNIST" / "raw") in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_an_unknown_name_lists_the_known(tmp_path):
    with pytest.raises(SettingError, match=r"dataset\.name=mnist.*cifar10, cifar100, fashion_mnist"):
        loaded(tmp_path, name="mnist")
