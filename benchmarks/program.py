"""The program as a user starts it: `python run.py ...` in a process of its own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


@contextmanager
def program(*arguments: str, cache: Path) -> Iterator[subprocess.Popen]:
    """Start it; the block may watch it, and ends when it does.

    Args:
        arguments: of run.py, those that place what it writes among them.
        cache: its TL_CACHE_DIR.

    Raises:
        SystemExit: it failed; with the last it said.
    """
    environment = os.environ | {"TL_CACHE_DIR": str(cache)}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "run.py", *arguments],
            cwd=REPOSITORY,
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        except BaseException:
            process.terminate()
            raise
        finally:
            process.wait()
        if process.returncode != 0:
            said.seek(0)
            raise SystemExit(f"error: run.py {' '.join(arguments)}\n{said.read()[-4000:]}")
