"""One thread that owns the network: images of all requests that wait at the same time become one batch."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from tl_experiments.serve.limits import busy

Classify = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class _Job:
    """A canvas for the next batch, or work that has the network for itself."""

    task: Any
    alone: bool = False
    future: "Future[Any]" = field(default_factory=Future)


class Place:
    """Room for one image in the queue, kept until it is taken or given up."""

    def __init__(self, batches: "Batches") -> None:
        self._batches = batches
        self.kept = True

    def take(self, canvas: np.ndarray) -> "Future[torch.Tensor]":
        """Queue an image: uint8 (3, C, C) → probabilities float32 (K,). Who cancels the future takes it out again."""
        return self._batches._add(_Job(canvas), self)

    def take_alone(self, work: Callable[[], Any]) -> "Future[Any]":
        """Queue work that uses the network without company."""
        return self._batches._add(_Job(work, alone=True), self)


class Batches:
    """A queue of images and the thread that empties it.

    A batch is what waits when the network is free. It is held back, for a moment, only while images are being decoded
    that would fit in: whoever comes alone does not wait for others.
    """

    def __init__(
        self,
        classify: Classify,
        *,
        batch_size: int,
        most_waiting: int,
        wait_seconds: float,
        notice: Callable[[int], None],
    ) -> None:
        """Prepare to work; the thread starts with the `with` block, at whose end it finishes what waits.

        Args:
            classify: canvases uint8 (B, 3, C, C), B at most `batch_size` → probabilities float32 (B, K).
            batch_size: images at once.
            most_waiting: images in the queue, and places kept for it.
            wait_seconds: that a batch is held back at most.
            notice: is told the size of each batch.
        """
        self._classify, self._batch_size, self._notice = classify, batch_size, notice
        self._most_waiting, self._wait_seconds = most_waiting, wait_seconds
        self._jobs: deque[_Job] = deque()
        self._kept = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def waiting(self) -> int:
        """Images and other work that wait, or are being prepared."""
        return len(self._jobs) + self._kept

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Keep a place in the queue; at the end of the block it is given up unless it was taken.

        Raises:
            Refused: there is none; 503.
        """
        place = Place(self)
        with self._changed:
            if self.waiting >= self._most_waiting:
                self._jobs = deque(job for job in self._jobs if not job.future.cancelled())
            if self.waiting >= self._most_waiting:
                raise busy(f"{self._most_waiting} images are waiting already")
            self._kept += 1
        try:
            yield place
        finally:
            with self._changed:
                self._give_up(place)
                self._changed.notify_all()

    def _add(self, job: _Job, place: Place) -> "Future[Any]":
        with self._changed:
            assert place.kept, "a place that was given up is another's"
            self._give_up(place)
            self._jobs.append(job)
            self._changed.notify_all()
        return job.future

    def _give_up(self, place: Place) -> None:
        self._kept -= place.kept
        place.kept = False

    def _work(self) -> None:
        while (jobs := self._next()) is not None:
            if jobs:
                self._answer(jobs)

    def _next(self) -> list[_Job] | None:
        """Wait for jobs and take those that go together; none where all were cancelled, None when all is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if not self._jobs:
                return None
            self._changed.wait_for(self._complete, timeout=self._wait_seconds)
            jobs: list[_Job] = []
            while self._jobs and len(jobs) < self._batch_size and not (jobs and self._jobs[0].alone):
                job = self._jobs.popleft()
                if not job.future.set_running_or_notify_cancel():
                    continue
                jobs.append(job)
                if job.alone:
                    break
            return jobs

    def _complete(self) -> bool:
        """Whether nothing is gained by holding the next batch back."""
        return self._kept == 0 or len(self._jobs) >= self._batch_size or self._closed

    def _answer(self, jobs: list[_Job]) -> None:
        try:
            if jobs[0].alone:
                results: Any = [jobs[0].task()]
            else:
                self._notice(len(jobs))
                results = self._classify(torch.from_numpy(np.stack([job.task for job in jobs])))
        except Exception as error:  # it is for those who asked; the thread goes on
            for job in jobs:
                job.future.set_exception(error)
        else:
            for job, result in zip(jobs, results, strict=True):
                job.future.set_result(result)
