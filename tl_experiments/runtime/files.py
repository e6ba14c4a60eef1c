"""Files that are whole or not there: written beside their place and moved into it."""

import os
from pathlib import Path


def publish_text(path: Path, text: str) -> None:
    """Write a text file so that a reader, or a later run after a crash, never sees half of it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
