"""SIGTERM unwinds the block by an exception that nothing swallows, and is the caller's own business outside it."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tl_experiments.runtime import signals
from tl_experiments.runtime.signals import Preempted, Terminated, obey, shielded, stop_asked, terminable


@pytest.fixture(autouse=True)
def seen() -> Iterator[list[int]]:
    """The signals that reached the handler which was there before."""
    signals: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: signals.append(number))
    yield signals
    signal.signal(signal.SIGTERM, before)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)


def test_inside_the_block_sigterm_unwinds_every_with(seen: list[int]) -> None:
    unwound = []

    def work() -> None:
        try:
            terminate()
            unwound.append("not reached")
        except Exception:
            unwound.append("swallowed")
        finally:
            unwound.append("unwound")

    with pytest.raises(Terminated, match="SIGTERM"), terminable():
        work()
    assert unwound == ["unwound"]
    assert not seen


def test_after_the_block_the_earlier_handler_is_back(seen: list[int]) -> None:
    with terminable():
        pass
    terminate()
    with pytest.raises(Terminated), terminable():
        terminate()
    terminate()
    assert seen == [signal.SIGTERM] * 2


def test_blocks_may_be_nested(seen: list[int]) -> None:
    def work() -> None:
        with terminable():
            pass
        terminate()

    with pytest.raises(Terminated), terminable():
        work()
    assert not seen


def test_another_thread_leaves_signals_as_they_are(seen: list[int]) -> None:
    handlers = []

    def work() -> None:
        with terminable():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]
    terminate()
    assert seen == [signal.SIGTERM]


def test_a_shielded_block_ends_before_the_signal_does_its_work() -> None:
    done = []

    def work() -> None:
        with shielded():
            terminate()
            done.append("inside")
        done.append("after")

    with pytest.raises(Terminated), terminable():
        work()
    assert done == ["inside"]


def test_a_second_signal_does_not_wait() -> None:
    done = []

    def work() -> None:
        with shielded():
            terminate()
            terminate()
            done.append("inside")

    with pytest.raises(Terminated), terminable():
        work()
    assert done == []


def test_ctrl_c_waits_too() -> None:
    done = []

    def work() -> None:
        with shielded():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            done.append("inside")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), terminable():
            work()
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == ["inside"]


def test_a_signal_that_the_shell_wants_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with terminable():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_loop_asks_saves_and_obeys() -> None:
    done = []

    def work() -> None:
        with shielded():
            assert not stop_asked()
            terminate()
            assert stop_asked()
            done.append("saved")
            obey()
            done.append("not reached")

    with pytest.raises(Terminated), terminable():
        work()
    assert done == ["saved"]


def test_a_signal_while_the_first_one_unwinds_does_not_wait() -> None:
    done = []

    def work() -> None:
        with shielded():
            terminate()
            try:
                obey()
            finally:
                terminate()
                done.append("not reached")

    with pytest.raises(Terminated), terminable():
        work()
    assert done == []


def test_a_block_that_never_asks_is_interrupted_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "PATIENCE_SECONDS", 0.2)

    def work() -> None:
        with shielded():
            terminate()
            time.sleep(30)

    start = time.monotonic()
    with pytest.raises(Terminated), terminable():
        work()
    assert time.monotonic() - start < 10
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("sent", [(signal.SIGTERM, signal.SIGUSR2), (signal.SIGUSR2, signal.SIGTERM)])
def test_sigterm_beside_the_warning_of_a_cluster_lets_the_step_end_and_is_pre_emption(sent: tuple[int, int]) -> None:
    done = []

    def work() -> None:
        with shielded():
            for number in sent:
                os.kill(os.getpid(), number)
                time.sleep(0.01)
            done.append("saved")

    with pytest.raises(Preempted), terminable():
        work()
    assert done == ["saved"]


def test_sigterm_after_the_warning_of_a_cluster_does_not_disturb_what_unwinds() -> None:
    done = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(0.01)
        finally:
            terminate()
            done.append("unwound")

    with pytest.raises(Preempted), terminable():
        work()
    assert done == ["unwound"]
