"""`tlx serve` in a fork of a process that has imported."""

import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.commands import wait_for
from tests.faults.processes import Program, server


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[Program, str]]:
    """Type `tlx serve ARGUMENTS` for any free port; yields the service and its URL, and stops it if that is needed."""
    with tempfile.TemporaryDirectory() as logs:
        typed = ("serve", *arguments, "--port", "0")
        service = server().start(*typed, cwd=Path.cwd(), logs=Path(logs), program="tlx")
        try:
            wait_for(lambda: service.ended or _urls(service), lambda: service.output)
            assert not service.ended, service.end()
            yield service, _urls(service)[0]
        finally:
            if not service.ended:
                service.signal(signal.SIGTERM)
                service.wait()


def _urls(service: Program) -> list[str]:
    """What it says that it serves."""
    return re.findall(r"^serving (\S+)  .*\n", service.output, re.MULTILINE)
