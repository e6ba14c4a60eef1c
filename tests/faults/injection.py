"""Faults at a chosen call of a writer's to the system, by strace."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHANGING = (
    *("open", "openat", "creat", "mkdir", "mkdirat", "write", "pwrite64", "writev", "sendfile", "copy_file_range"),
    *("ftruncate", "fallocate", "fsync", "fdatasync", "sync_file_range", "flock", "fcntl"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "rmdir"),
    *("utime", "utimes", "utimensat", "chmod", "fchmod", "fchmodat"),
)
CAN_BE_FULL = (
    *("mkdir", "mkdirat", "write", "pwrite64", "writev", "ftruncate", "fallocate", "fsync", "fdatasync"),
    *("rename", "renameat", "renameat2"),
)
PATIENCE_SECONDS = 20


@dataclass(frozen=True)
class Call:
    """The `nth` call of its name that a writer makes."""

    name: str
    nth: int
    arguments: str

    @property
    def can_be_full(self) -> bool:
        """Whether the system may answer that the disk is full; not where there was nothing to do."""
        creates = self.name in ("open", "openat") and "O_CREAT" in self.arguments
        return (creates or self.name in CAN_BE_FULL) and ") = -1 " not in self.arguments

    @property
    def kill(self) -> str:
        """Injection that kills the writer before this call has done anything."""
        return f"{self.name}:signal=KILL:when={self.nth}"

    @property
    def disk_full(self) -> str:
        """Injection of a full disk, which stays full; a name that was just given up can be taken back, though."""
        stays = "" if self.name.startswith(("rename", "open")) else "+"
        return f"{self.name}:error=ENOSPC:when={self.nth}{stays}"


@dataclass(frozen=True)
class Ended:
    """How a writer ended: negative codes are signals; `error` is what it said of a save that failed."""

    code: int
    saved: int
    error: str


class Writers:
    """Processes that write, one after the other, forked from one that has imported what they need."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    def start(self, writer: str, folder: Path, *, care: str = "") -> int:
        """Fork a writer, which waits for numbers to save; its process id."""
        self._send({"writer": writer, "folder": str(folder), "care": care})
        return self._receive()["pid"]

    def save(self, number: int) -> None:
        self._send(number)

    def answer(self) -> dict[str, Any] | None:
        """Return what became of a save; None when the writer has died."""
        answer = self._receive()
        return None if "code" in answer else answer

    def finish(self) -> Ended:
        """Let the writer end, and return what it said last."""
        self._send(0)
        return self.end()

    def end(self) -> Ended:
        """Wait for the end of a writer that was killed, or told to end."""
        last = {"saved": 0, "error": ""}
        while "code" not in (answer := self._receive()):
            last = answer
        return Ended(answer["code"], last["saved"], last["error"])

    def write(
        self, writer: str, folder: Path, number: int, *, care: str = "", inject: str = "", trace: Path | None = None
    ) -> Ended:
        """Save one number under strace, and perhaps under a fault."""
        pid = self.start(writer, folder, care=care)
        names = inject.partition(":")[0] or ",".join(f"?{name}" for name in CHANGING)
        fault = ["-e", f"inject={inject}"] if inject else []
        command = ["strace", "-qq", "-o", str(trace or "/dev/null"), "-e", f"trace={names}", *fault, "-p", str(pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        _wait_until_traced(pid, tracer)
        self._send(number)
        answer = self._receive()
        ended = self.end() if "code" not in answer and self._send(0) is None else None
        tracer.communicate(timeout=PATIENCE_SECONDS)
        return Ended((ended or Ended(answer["code"], 0, "")).code, answer.get("saved", 0), answer.get("error", ""))

    def _send(self, message: object) -> None:
        self._control.send(json.dumps(message).encode())

    def _receive(self) -> dict[str, Any]:
        return json.loads(self._control.recv(10_000))


@contextmanager
def writers() -> Iterator[Writers]:
    """Start the process that forks writers."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(PATIENCE_SECONDS)
    program = [sys.executable, "-m", "tests.faults.writers", str(theirs.fileno())]
    root = Path(__file__).parent.parent.parent
    server = subprocess.Popen(program, pass_fds=[theirs.fileno()], cwd=root)
    theirs.close()
    try:
        yield Writers(ours)
    finally:
        ours.close()
        server.wait(timeout=PATIENCE_SECONDS)


def calls(trace: Path) -> list[Call]:
    """Return the calls of a trace."""
    seen, found = Counter[str](), []
    for line in trace.read_text().splitlines():
        if match := re.match(r"(\w+)\((.*)", line):
            seen[match[1]] += 1
            found.append(Call(match[1], seen[match[1]], match[2]))
    return found


def why_not() -> str | None:
    """Say why no faults can be injected here; None: they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    return f"strace cannot trace: {probe.stderr.strip()}" if probe.returncode else None


def _wait_until_traced(pid: int, tracer: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
        if tracer.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"strace did not attach: {tracer.communicate()[1]}")
        time.sleep(0.001)
