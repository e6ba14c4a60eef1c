"""What is counted of the service, as Prometheus reads it."""

import time
from collections.abc import Callable, Set

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tl_experiments.serve.errors import CLIENT_GONE

OTHER = "other"  # every path that is not answered: a client could make up any number of them
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters of one service; several may live in one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "tlx_requests", "Requests by path and status", ("path", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "tlx_request_seconds",
            "From the head of a request to the end of its answer",
            ("path",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._images = Counter(
            "tlx_images", "Images that were classified, explained or refused", ("outcome",), registry=self._registry
        )
        self._batches = Histogram(
            "tlx_batch_images", "Images that the network saw at once", buckets=BATCHES, registry=self._registry
        )

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Show the length of a queue, asked for whenever somebody looks."""
        gauge = Gauge("tlx_queue_images", "Images that wait, or are being decoded", registry=self._registry)
        gauge.set_function(length)

    def request(self, path: str, status: int, seconds: float) -> None:
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def image(self, outcome: str) -> None:
        """Count an image: classified, explained or refused."""
        self._images.labels(outcome).inc()

    def batch(self, size: int) -> None:
        self._batches.observe(size)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)


class Watched:
    """ASGI middleware: counts and times every request."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, paths: Set[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), CLIENT_GONE

        async def send_watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_watched)
        finally:
            path = scope["path"] if scope["path"] in self._paths else OTHER
            self._metrics.request(path, status, time.perf_counter() - start)
