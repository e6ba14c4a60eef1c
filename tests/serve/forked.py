"""`tlx serve` in a fork of a process that has imported."""

import re
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.processes import LIMIT_SECONDS, Program, server


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[Program, str]]:
    """Type `tlx serve ARGUMENTS` for any free port; yields the service and its URL, and stops it if that is needed."""
    with tempfile.TemporaryDirectory() as logs:
        typed = ("serve", *arguments, "--port", "0")
        service = server().start(*typed, cwd=Path.cwd(), logs=Path(logs), program="tlx")
        try:
            deadline = time.monotonic() + LIMIT_SECONDS
            while not (found := re.search(r"^serving (\S+)  .*\n", service.output, re.MULTILINE)):
                assert not service.ended, service.end()
                assert time.monotonic() < deadline, service.output
                time.sleep(0.02)
            yield service, found[1]
        finally:
            if not service.ended:
                service.signal(signal.SIGTERM)
                service.wait()
