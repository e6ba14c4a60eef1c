"""What the library WebDataset knows of names: the one file that imports it.

Its reader goes from end to end of a tar file and does not tell where things lie; its opener runs commands, for
`pipe:` any; its decoders open pickles. None of these is used.
"""

import math
import re
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from tl_experiments.runtime.errors import DataError, SettingError

_NEEDED = "dataset=webdataset needs the library webdataset for shards without an index: "
_INSTALL = "pip install 'tl_experiments[webdataset]'"
_MOST_SHARDS = 1_000_000
_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)")


def expand(pattern: str) -> list[str]:
    """Return the names that a pattern such as `train-{0000..0015}.tar` stands for, in its order.

    Raises:
        DataError: the library is not installed.
        SettingError: its braces do not match, or it stands for too many.
    """
    try:
        import braceexpand  # noqa: PLC0415 - optional: it comes with webdataset
    except ImportError as error:
        raise DataError(_NEEDED + _INSTALL) from error
    ranges = (abs(int(last) - int(first)) + 1 for first, last in _RANGE.findall(pattern))
    if math.prod(ranges) > _MOST_SHARDS:  # before they are all in memory
        raise SettingError(f"dataset.root={pattern}: more than {_MOST_SHARDS:,} shards; expected fewer, larger ones")
    try:
        return list(braceexpand.braceexpand(pattern))
    except ValueError as error:
        raise SettingError(f"dataset.root={pattern}: its braces do not match ({error})") from error


def grouped(files: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Group files by what stands before the first dot of their names.

    Args:
        files: names and what belongs to them, in the order of a shard.

    Yields:
        key, and what belongs to each suffix, in lower case.

    Raises:
        DataError: the library is not installed.
        ValueError: a name occurs twice.
    """
    named = ({"fname": name, "data": value, "__url__": ""} for name, value in files)
    for sample in _readers().group_by_keys(named):
        yield sample["__key__"], {suffix: value for suffix, value in sample.items() if not suffix.startswith("__")}


def _readers() -> ModuleType:
    try:
        from webdataset import tariterators  # noqa: PLC0415 - optional, and it takes a second
    except ImportError as error:
        raise DataError(_NEEDED + _INSTALL) from error
    return tariterators
