"""`tlx serve` in a process of its own, and clients that ask it all at once."""

import http.client
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np

HEADERS = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Load:
    """What clients saw.

    Attributes:
        per_second: answers.
        seconds: that each answer took.
    """

    per_second: float
    seconds: np.ndarray

    def percentile(self, share: float) -> float:
        """In milliseconds."""
        return float(np.percentile(self.seconds, share)) * 1e3


class Service:
    """A service that runs, and its clients."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port, timeout=60)

    def ask(self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> bytes:
        """Return the body of a good answer."""
        connection.request(method, path, body, HEADERS)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise SystemExit(f"error: {method} {path} was answered {answer.status}: {content[:200]!r}")
        return content

    def wait_until_ready(self) -> None:
        while True:
            with suppress(OSError):  # it says where it will be a moment before it is there
                connection = self.connect()
                connection.request("GET", "/ready")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.05)

    def load(self, files: Sequence[bytes] | None, *, clients: int, seconds: float) -> Load:
        """Have clients post files, or ask for /health where there are none, for some seconds."""
        took: list[list[float]] = [[] for _ in range(clients)]
        end = time.perf_counter() + seconds

        def work(number: int) -> None:
            connection = self.connect()
            turn = number
            while (start := time.perf_counter()) < end:
                if files is None:
                    self.ask(connection, "GET", "/health")
                else:
                    self.ask(connection, "POST", "/predict", files[turn % len(files)])
                took[number].append(time.perf_counter() - start)
                turn += clients
            connection.close()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        together = np.concatenate(took)
        return Load(len(together) / (time.perf_counter() - start), together)

    def batches(self) -> tuple[float, float]:
        """Return how many images were classified, and in how many batches, as /metrics counts them."""
        text = self.ask(self.connect(), "GET", "/metrics").decode()
        rows = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("tlx_batch_images_"))
        return float(rows["tlx_batch_images_sum"]), float(rows["tlx_batch_images_count"])


@contextmanager
def service(run: str, *options: str) -> Iterator[Service]:
    """Start `tlx serve` as a user does; it is stopped at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tl_experiments", "serve", run, "--port", "0", *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        for line in process.stdout:
            if found := re.match(r"serving http://([\d.]+):(\d+)", line):
                running = Service(found[1], int(found[2]))
                running.wait_until_ready()
                yield running
                break
        else:
            raise SystemExit("error: the service has not started; its last words are above")
    finally:
        process.terminate()
        process.wait()
