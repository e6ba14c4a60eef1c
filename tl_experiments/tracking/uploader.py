"""Delivers the journals of a process to one store, from a thread of its own: nothing that trains ever waits for it."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache

from tl_experiments.runtime.errors import SettingError
from tl_experiments.tracking.delivery import Delivery
from tl_experiments.tracking.links import SQLITE
from tl_experiments.tracking.mlflow_store import Store, StoreAway, one_line, open_store, refused_access
from tl_experiments.tracking.patience import Patience

START_SECONDS = 5.0  # that the start of all runs of a process may wait for a server
LAST_SECONDS = 5.0  # that the end may wait for a server's next answer
FLUSH_SECONDS = 1.0  # entries that follow each other faster are sent together


class Uploader:
    """One thread for one store, however many runs a process has: they wait for the same server."""

    def __init__(self, address: str) -> None:
        """Keep the address of the store; the thread is there while there are journals to deliver."""
        self._address = address
        self._patience = Patience()
        self._changed = threading.Condition()
        self._deliveries: list[Delivery] = []  # the next one first
        self._stores: dict[str, Store] = {}
        self._thread: threading.Thread | None = None
        self._left_to_wait = START_SECONDS
        self._is_told = False  # that the store is away

    def begin(self, delivery: Delivery) -> str | None:
        """Take a journal, and wait until its run is there, or for as long as a start may take.

        Returns:
            Why it is not there yet; None where it is, or where another run of the process was told already.

        Raises:
            SettingError: it can never be there.
        """
        with self._changed:
            is_first = not self._deliveries
            if is_first:
                self._left_to_wait = float("inf") if self._address.startswith(SQLITE) else START_SECONDS
                self._patience.ask_at = 0.0
                self._is_told = False
            num_failed, start = self._patience.num_failed, time.monotonic()

            def is_known() -> bool:
                """Whether it is known how the start goes; a server that is away for one run is away for all."""
                tried = self._patience.num_failed > num_failed or (self._patience.is_away and not is_first)
                return delivery.has_begun or delivery.fault is not None or tried

            delivery.is_starting = True
            self._deliveries.append(delivery)
            self._start_thread()
            try:
                self._wait(is_known, until=start + self._left_to_wait)
            except BaseException:
                self._remove(delivery)
                raise
            finally:
                delivery.is_starting = False
                self._left_to_wait = max(0.0, self._left_to_wait - (time.monotonic() - start))
            if delivery.fault:
                raise delivery.fault
            if delivery.has_begun or self._is_told:
                return None
            self._is_told = True
            return self._patience.reason or "no answer in time"

    def wake(self) -> None:
        """There are more entries."""
        with self._changed:
            self._changed.notify_all()

    def end(self, delivery: Delivery, *, seconds: float) -> list[Delivery]:
        """Let the last entries of a journal go. While others of the process go on, nothing waits: the last one does.

        Args:
            delivery: begun here.
            seconds: that all of it may take while the server answers; one that is away is asked once more.

        Returns:
            The journals that have ended now, delivered or not.
        """
        with self._changed:
            delivery.is_ending = True
            self._changed.notify_all()
            if not all(other.is_ending for other in self._deliveries):
                return []
            ended = list(self._deliveries)
            try:
                self._wait_for_all(ended, until=time.monotonic() + seconds)
            finally:
                self._deliveries.clear()
                self._changed.notify_all()
            return ended

    def deliver(self, deliveries: Sequence[Delivery], *, seconds: float) -> None:
        """Send journals that nothing more comes to, until the store fails once or some seconds are over.

        Args:
            deliveries: of runs that have ended.
            seconds: that all of it may take.
        """
        with self._changed:
            for delivery in deliveries:
                delivery.is_ending = True
            self._deliveries += deliveries
            self._start_thread()
            try:
                self._wait(
                    lambda: self._patience.is_away or not any(delivery.is_due for delivery in deliveries),
                    until=time.monotonic() + seconds,
                )
            finally:
                self._deliveries.clear()
                self._changed.notify_all()

    def _wait_for_all(self, ended: Sequence[Delivery], *, until: float) -> None:
        """Wait until all is sent, or no more can be hoped for."""
        was_away, num_failed = self._patience.is_away, self._patience.num_failed
        self._patience.ask_at = 0.0
        answered_at = time.monotonic()
        while any(delivery.is_due for delivery in ended):
            if not self._patience.is_away:
                answered_at = time.monotonic()
            elif was_away and self._patience.num_failed > num_failed:
                return  # it was asked once more
            limit = min(until, answered_at + LAST_SECONDS) if self._patience.is_away else until
            if time.monotonic() >= limit:
                return
            self._changed.wait(min(limit - time.monotonic(), 1.0))

    def _wait(self, condition: Callable[[], bool], *, until: float) -> None:
        """Wait for a condition until a time; without one, a signal is looked for all the same."""
        while not condition() and time.monotonic() < until:
            self._changed.wait(min(until - time.monotonic(), 1.0))

    def _remove(self, delivery: Delivery) -> None:
        self._deliveries = [other for other in self._deliveries if other is not delivery]

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._deliver, name="tracking", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _deliver(self) -> None:
        """Send what is due until no journal is left."""
        while True:
            with self._changed:
                delivery = self._next()
                if delivery is None:
                    self._patience.release()
                    self._thread = None
                    return
            trouble: Exception | None = None
            try:
                self._patience.apply()
                delivery.step(self._store(delivery.journal.header.experiment_name))
            except Exception as error:  # whatever a library raises: tracking ends no run
                trouble = error
            with self._changed:
                self._note(delivery, trouble)
                self._changed.notify_all()

    def _store(self, experiment_name: str) -> Store:
        if experiment_name not in self._stores:
            self._stores[experiment_name] = open_store(self._address, experiment_name=experiment_name)
        return self._stores[experiment_name]

    def _next(self) -> Delivery | None:
        """Wait for a journal that has something to send; None when all have ended."""
        while self._deliveries:
            due = [(self._ready_at(delivery), number) for number, delivery in enumerate(self._deliveries)]
            ready_at, number = min(due)
            left = ready_at - time.monotonic()
            if left <= 0:
                self._deliveries.append(self._deliveries.pop(number))  # the others come first next time
                return self._deliveries[-1]
            self._changed.wait(min(left, threading.TIMEOUT_MAX))
        return None

    def _ready_at(self, delivery: Delivery) -> float:
        if not delivery.is_due:
            return float("inf")
        hurries = not delivery.has_begun or delivery.is_ending
        return max(self._patience.ask_at, 0.0 if hurries else delivery.sent_at + FLUSH_SECONDS)

    def _note(self, delivery: Delivery, trouble: Exception | None) -> None:
        """Keep how a step went."""
        now = time.monotonic()
        if trouble is None:
            self._patience.answered()
            delivery.sent_at = now
            return
        self._stores.clear()
        fault = refused_access(trouble, self._address)
        if isinstance(trouble, SettingError) and not isinstance(trouble, StoreAway):
            fault = trouble
        if fault and delivery.is_starting:
            delivery.fault = fault
            self._remove(delivery)
        else:
            self._patience.failed(one_line(trouble, self._address), now=now)


@cache
def _uploader(address: str, _process: int) -> Uploader:
    return Uploader(address)


def uploader_of(address: str) -> Uploader:
    """Return the process's uploader to a store."""
    return _uploader(address, os.getpid())
