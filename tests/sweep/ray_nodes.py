"""A Ray cluster of several nodes on this machine, each the processes of one session, which can be killed."""

import os
import secrets
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.commands import take_signals, wait_for
from tests.faults.processes import PATHS

HEAD, WORKER = "127.0.0.2", "127.0.0.3"
STARTED = "Ray runtime started."  # it says, when the cluster knows the node
QUICK = {  # a node that is gone is known to be so in seconds, one that is only slow is not given up
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "30000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_worker_niceness": "0",  # else other tests have the processor
}


@dataclass
class Cluster:
    """Nodes with one CPU each, and a cache of their own.

    Attributes:
        folder: for what Ray writes and for the caches of the nodes; a short path, since sockets have at most 107 bytes.
        sessions: name of a node → the session that its processes belong to.
    """

    folder: Path
    sessions: dict[str, int] = field(default_factory=dict)
    _port: int = 0
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _token: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which a sweep finds the cluster."""
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token, "RAY_USAGE_STATS_ENABLED": "0"}
        return {**own, "RAY_ADDRESS": f"{HEAD}:{self._port}"}

    def start(self) -> None:
        """Start the head and a worker."""
        with socket.socket() as free:
            free.bind((HEAD, 0))
            self._port = free.getsockname()[1]
        head = ("--head", f"--port={self._port}", "--include-dashboard=false", f"--temp-dir={self.folder / 'ray'}")
        self._start("head", f"--node-ip-address={HEAD}", *head)
        self._start("worker", f"--node-ip-address={WORKER}", f"--address={HEAD}:{self._port}")

    def _start(self, name: str, *options: str) -> None:
        common = ("--num-cpus=1", "--num-gpus=0", "--object-store-memory=80000000", "--disable-usage-stats", "--block")
        environment = os.environ | self.environment | QUICK
        del environment["RAY_ADDRESS"]
        path = self.folder / f"{name}.log"
        with path.open("w") as log:
            process = subprocess.Popen(
                [str(Path(sys.executable).with_name("ray")), "start", *options, *common],
                cwd=self.folder,
                env=environment | {"PYTHONPATH": PATHS, "TL_CACHE_DIR": str(self.cache(name))},
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=take_signals,
            )
        self.sessions[name] = process.pid
        self._processes.append(process)
        wait_for(lambda: STARTED in path.read_text() or process.poll() is not None, path.read_text)
        assert process.poll() is None, path.read_text()

    def cache(self, name: str) -> Path:
        return self.folder / f"cache-{name}"

    def kill(self, name: str) -> None:
        """Kill all processes of a node at once."""
        for pid in members(self.sessions[name]):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        for name in self.sessions:
            while members(self.sessions[name]):
                self.kill(name)
                self._reap()

    def _reap(self) -> None:
        for process in self._processes:
            process.poll()


def members(session: int) -> list[int]:
    """Return the living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, of_session = path.read_text().rpartition(")")[2].split()[:4]
            if int(of_session) == session and state != "Z":
                found.append(int(path.parent.name))
    return found
