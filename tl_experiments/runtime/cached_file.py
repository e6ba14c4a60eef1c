"""A file that is made once and kept in the caches until there is no room for it. Nothing heavy is imported."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from tl_experiments.runtime.cache_entries import touch
from tl_experiments.runtime.cache_folder import cache_folder, cache_limit
from tl_experiments.runtime.cache_lock import locked
from tl_experiments.runtime.cache_pruning import make_room
from tl_experiments.runtime.files import make_folder, publish, unfinished
from tl_experiments.runtime.fingerprint import fingerprint


def cached_file(
    *,
    kind: str,
    name: str,
    fields: Mapping[str, Any],
    make: Callable[[BinaryIO], None],
    notice: Callable[[str], None],
) -> Path:
    """Return the path of a file, which is made if it is not there; others that wait for it find it made.

    It may go whenever another file is made; whoever has opened it can read on.

    Args:
        kind: shards or indexes.
        name: of the file.
        fields: plain JSON values, all that determines its content.
        make: writes it; what it raises is raised, and there is no file.
        notice: told where another process is waited for.

    Raises:
        OSError: it cannot be written.
        SettingError: TL_CACHE_DIR or TL_CACHE_LIMIT_GB makes no sense.
    """
    identity = _identity(fields)
    entry, limit = cache_folder() / kind / fingerprint(identity), cache_limit()
    path, key = entry / name, json.dumps(identity, indent=2, sort_keys=True).encode()
    if path.is_file():
        with suppress(OSError):  # it may be read although it cannot be written to
            touch(entry, key)
        return path
    make_folder(entry.parent)
    with locked(entry, waiting=lambda: notice(f"cache: waiting for another process that makes the same {name}")):
        if not path.is_file():
            make_folder(entry)
            touch(entry, key)
            with unfinished(entry) as file:
                make(file)
                publish(file, path)
            make_room(cache_folder(), limit=limit, keep=entry)
    return path


def forget_file(*, kind: str, name: str, fields: Mapping[str, Any]) -> None:
    """Have a file made again when it is wanted again, as it turned out to be wrong; the arguments are those above."""
    with suppress(OSError):
        (cache_folder() / kind / fingerprint(_identity(fields)) / name).unlink()


def _identity(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"fields": dict(fields), "row_bytes": 1}
