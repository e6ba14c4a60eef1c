"""Rows of a Hugging Face dataset, from a folder or the Hub: the one file that knows the library `datasets`."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.constants import HF_HUB_CACHE
from PIL import Image

from tl_experiments.data.decoding import ImageError, decode
from tl_experiments.data.image_files import leaves, printable, read_image_file
from tl_experiments.runtime.errors import DataError, SettingError

_NEEDED = "dataset=hf needs the library datasets: pip install 'tl_experiments[hf]'"
_SAVED = ("dataset_dict.json", "state.json")  # of which `save_to_disk` writes one


@dataclass(frozen=True)
class HubSource:
    """Images in a column of a Hugging Face split, as bytes or as paths of files.

    Attributes:
        rows: a `datasets.Dataset` whose one column is not decoded.
        split: as the dataset calls it; images are called by it and their rows from 0.
        labels: (N,) int64.
        homes: resolved folders, in which files must be; empty where they may be anywhere.
    """

    rows: Any = field(repr=False)
    split: str
    labels: np.ndarray = field(repr=False)
    homes: tuple[Path, ...] = field(repr=False)
    known = None

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        return self.image_from(index, self.content(index))

    def content(self, index: int) -> bytes:
        [cell] = self.rows[index].values()
        content, path = (cell["bytes"], cell["path"]) if cell else (None, None)
        if content is not None:
            return content
        if path is None:
            raise ImageError(self.name(index), "empty", "the row holds no image; fill or remove it")
        return self._file(index, Path(path))

    def image_from(self, index: int, content: bytes) -> Image.Image:
        return decode(content, name=self.name(index))

    def name(self, index: int) -> str:
        return f"{printable(self.split)}/{index}"

    def _file(self, index: int, path: Path) -> bytes:
        try:
            outside = self.homes and all(leaves(path, home) for home in self.homes)
        except (OSError, ValueError) as error:  # there is no such file, or no file can be called so
            reason = f"{printable(path)} cannot be read ({getattr(error, 'strerror', error)})"
            raise ImageError(self.name(index), "unreadable", reason) from error
        if outside:
            raise ImageError(
                self.name(index),
                "link",
                f"it is not in the dataset, but at {printable(path)}; allow such paths by dataset.follow_links=true",
            )
        return read_image_file(path, within=None)


def load_splits(*, name: str | None, root: str | None, subset: str | None, revision: str | None) -> dict[str, Any]:
    """Return the splits of a dataset as `datasets.Dataset`, by the names that it gives them.

    None of its code is run: the library has given that up.

    Args:
        name: on the Hub.
        root: a folder instead: of `save_to_disk`, or of files that `load_dataset` knows.
        subset: which of its configurations; None is the only one, or its default.
        revision: of the Hub's repository; None is its newest.

    Raises:
        DataError: there is none, it cannot be read or reached, or `datasets` is not installed.
        SettingError: the name is a folder.
    """
    library, called = _library(), f"dataset.name={name}" if root is None else f"dataset.root={root}"
    if root is None and Path(str(name)).expanduser().exists():  # which the library would take for the dataset
        raise SettingError(f"dataset.name={name}: a folder of this name is here; expected dataset.root={name} for it")
    place = str(name) if root is None else str(Path(root).expanduser().absolute())
    if root is not None and not Path(place).is_dir():
        raise DataError(f"{called}: no such folder; expected one with a dataset")
    try:
        if root is not None and any(Path(place, file).is_file() for file in _SAVED):
            loaded = library.load_from_disk(place)
        else:
            loaded = library.load_dataset(place, subset, revision=revision)
    except MemoryError:
        raise
    except Exception as error:  # its readers raise nearly anything on what they do not know
        raise DataError(_told(called, error)) from error
    return dict(loaded) if isinstance(loaded, Mapping) else {"train": loaded}


def _library() -> Any:
    try:
        import datasets  # noqa: PLC0415 - optional, and it takes a second
    except ImportError as error:
        raise DataError(_NEEDED) from error
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets


def _told(called: str, error: Exception) -> str:
    cause = error.__cause__ if type(error).__name__ == "DatasetGenerationError" and error.__cause__ else error
    reason = printable(" ".join(str(cause).split()) or type(cause).__name__)
    away = "; fetch it where there is a network, or give a folder by dataset.root"
    return f"{called}: cannot be read as a dataset ({reason}){away if isinstance(error, ConnectionError) else ''}"


def homes_of(root: str | None) -> tuple[Path, ...]:
    """Return the folders in which a dataset's files lie: its own, or those where Hugging Face keeps what it fetched."""
    if root is not None:
        return (Path(root).expanduser().resolve(),)
    return Path(HF_HUB_CACHE).resolve(), Path(_library().config.HF_DATASETS_CACHE).resolve()


def undecoded(rows: Any, column: str) -> Any:
    """Return a split's one column, whose images stay the bytes that they are."""
    return rows.with_format(None).select_columns([column]).cast_column(column, _library().Image(decode=False))
