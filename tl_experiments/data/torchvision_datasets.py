"""CIFAR-10, CIFAR-100 and Fashion-MNIST, read and downloaded by torchvision in its own folder layout."""

import gzip
import http.client
import os
import socket
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from torchvision import datasets

from tl_experiments.data.source import ArraySource, Dataset, Split
from tl_experiments.data.splits import hold_out, limit_train_size
from tl_experiments.runtime.errors import DataError, SettingError

_TIMEOUT_SECONDS = 30.0
_FAILURES = (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError, zlib.error)


@dataclass(frozen=True)
class _Kind:
    """One of torchvision's classes, and what a person needs to fetch its files by hand.

    Attributes:
        load: torchvision's class.
        urls: of the files.
        folder: below the root, where the files go as they are.
    """

    load: Any
    urls: tuple[str, ...]
    folder: str = ""


def _kinds() -> dict[str, _Kind]:
    fashion = datasets.FashionMNIST
    return {
        "cifar10": _Kind(datasets.CIFAR10, (datasets.CIFAR10.url,)),
        "cifar100": _Kind(datasets.CIFAR100, (datasets.CIFAR100.url,)),
        "fashion_mnist": _Kind(
            fashion, tuple(fashion.mirrors[0] + file for file, _ in fashion.resources), "FashionMNIST/raw"
        ),
    }


def torchvision_dataset(
    *,
    name: str,
    root: str,
    download: bool,
    train_size: int | float | None,
    val_fraction: float,
    split_seed: int,
    crop_pct: float | None,
) -> Dataset:
    """Load one of torchvision's datasets; val is a stratified part of its train split, test is its test split.

    Args:
        name: cifar10, cifar100 or fashion_mnist.
        root: folder in torchvision's layout.
        download: fetch the files when they are not there.
        train_size: a count of at least one per class, a fraction in (0, 1], or None for all; applied after val is
            split off.
        val_fraction: share of train that is val, in (0, 1).
        split_seed: of val and of `train_size`.
        crop_pct: share of the image that the centre crop keeps; None leaves it to the backbone.

    Raises:
        DataError: the files are missing or damaged and cannot be downloaded.
        SettingError: the name is unknown, or `train_size` or `val_fraction` is out of range.
    """
    kinds = _kinds()
    if name not in kinds:
        raise SettingError(f"dataset.name={name}: expected one of {', '.join(kinds)}")
    train, test = _load(name, kinds[name], Path(root).expanduser(), download=download)
    source = _source(train, "train")
    class_names = tuple(train.classes)
    kept, held = hold_out(source.labels, fraction=val_fraction, seed=split_seed, split="val", class_names=class_names)
    chosen = limit_train_size(source.labels[kept], train_size=train_size, seed=split_seed, num_classes=len(class_names))
    return Dataset(
        name=name,
        class_names=class_names,
        train=Split("train", source, kept[chosen]),
        val=Split("val", source, held),
        test=Split("test", _source(test, "test"), np.arange(len(test.targets))),
        crop_pct=crop_pct,
    )


def _source(loaded: Any, prefix: str) -> ArraySource:
    return ArraySource(np.asarray(loaded.data), np.asarray(loaded.targets, dtype=np.int64), prefix)


def _load(name: str, kind: _Kind, root: Path, *, download: bool) -> tuple[Any, Any]:
    """Read train and test; fetch the files first where they are missing."""
    try:
        return _read(kind, root, download=False)
    except _FAILURES:  # missing or damaged: torchvision checks the files
        pass
    folder = root.resolve() / kind.folder
    by_hand = (
        f"put {' '.join(kind.urls)} into {folder} by hand (the files as they are, with dataset.download=true), "
        "or take dataset=digits, which needs no download"
    )
    if not download:
        raise DataError(f"{name} is not in {root.resolve()} and dataset.download=false: {by_hand}")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"dataset.root={root}: cannot be made ({error.strerror}); expected a folder that can be written to"
        ) from error
    try:
        with FileLock(root / f".{name}.lock"), _timeout(_TIMEOUT_SECONDS):
            return _read(kind, root, download=True)
    except _FAILURES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name} cannot be downloaded ({reason}): {by_hand}") from error


def _read(kind: _Kind, root: Path, *, download: bool) -> tuple[Any, Any]:
    if kind.load is datasets.FashionMNIST:
        _unpack(kind, root)
    return kind.load(root, train=True, download=download), kind.load(root, train=False, download=download)


def _unpack(kind: _Kind, root: Path) -> None:
    """Unpack archives that were put there by hand, which torchvision does only for those that it would download."""
    for archive in (root / kind.folder / url.rsplit("/", 1)[1] for url in kind.urls):
        target = archive.with_suffix("")
        if archive.is_file() and not target.exists():
            partial = target.with_name(f"{target.name}.{os.getpid()}.part")
            partial.write_bytes(gzip.decompress(archive.read_bytes()))
            partial.replace(target)


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Torchvision opens its URLs without a time limit; a silent network would hold the run for minutes."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)
