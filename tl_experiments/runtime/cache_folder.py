"""Where caches live, and how much they may take. Nothing heavy is imported.

    <folder>/<kind>/<key>/key.json      what the key is the sha256 of; touched whenever the entry is used
                          <name>.rows   payload of a shard: rows, one after the other
                          <name>.json   its manifest, written last; <name> is the sha256 of the manifest's bytes
    <folder>/<kind>/<key>.lock          held while rows of the entry are computed, or while it is removed
                    <key>.2-of-16.lock  held while that share of its rows is computed

Readers take no lock: whatever they find is checked row by row. Whoever finds rows missing locks, computes and writes;
where locks do not work, as on some network file systems, two may compute the same rows, and both write the same.
What is asked of a file system is that it renames a file in one motion. Entries of the kinds `shards` and `indexes`
hold one file each, whole, besides key.json.
"""

import math
import os
from pathlib import Path

import platformdirs

from tl_experiments.runtime.errors import SettingError

FOLDER, LIMIT = "TL_CACHE_DIR", "TL_CACHE_LIMIT_GB"
DEFAULT_LIMIT_GB = 20.0
GB = 10**9


def cache_folder() -> Path:
    """Return where caches live: TL_CACHE_DIR, else the user's cache folder; it need not exist.

    Raises:
        SettingError: TL_CACHE_DIR begins with the home of a user who is not there.
    """
    chosen = os.environ.get(FOLDER)
    if not chosen:
        return platformdirs.user_cache_path("tl_experiments", appauthor=False).absolute()
    try:
        return Path(chosen).expanduser().absolute()
    except RuntimeError:
        user = Path(chosen).parts[0]
        raise SettingError(f"{FOLDER}={chosen}: there is no home of {user}; name a folder by its whole path") from None


def cache_limit() -> float:
    """Return how many bytes all caches together may take.

    Raises:
        SettingError: TL_CACHE_LIMIT_GB is not a number of gigabytes.
    """
    chosen = os.environ.get(LIMIT)
    try:
        return parse_gigabytes(chosen) if chosen else DEFAULT_LIMIT_GB * GB
    except ValueError as error:
        raise SettingError(f"{LIMIT}={chosen}: {error}") from None


def parse_gigabytes(text: str) -> float:
    """Turn a number of gigabytes into bytes.

    Raises:
        ValueError: it is not a number, or not one of 0 or more.
    """
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not 0 <= gigabytes < math.inf:
        raise ValueError("expected a number of gigabytes, 0 or more, such as 20 or 0.5")
    return gigabytes * GB
