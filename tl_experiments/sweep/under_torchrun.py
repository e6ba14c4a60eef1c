"""A run of several processes: the first is led in by the door as any run is, the others do what it tells them."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import from_plain
from tl_experiments.runtime.errors import RankLost
from tl_experiments.runtime.importing import importing
from tl_experiments.runtime.signals import StoppedTogether, Terminated, terminable
from tl_experiments.runtime.torchrun import Launch
from tl_experiments.sweep.resumed import KEY, is_resume
from tl_experiments.tracking.run_record import FILE as RECORD

KEPT = "allow_targets"  # of what is typed, by an attempt that goes on: all else is in the run's record
FIRST_SECONDS = 3.0  # in which the first process tells of an error that all have


def quieten() -> None:
    """Have PyTorch, before it is imported, not warn of what `engine.synchronised` does on purpose."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


@contextmanager
def leading(launch: Launch) -> Iterator[None]:
    """Be the first process; the others learn when it has come to its end, and by which error."""
    try:
        yield
        if not launch.has_given:
            launch.give_task(None)  # --help, or a run that has finished
        launch.forget()
    finally:
        launch.end()


def arguments_now(launch: Launch, arguments: Sequence[str]) -> list[str]:
    """Return what the command line means now: an attempt after the first goes on with the run of the one before.

    Raises:
        ConfigError: it is that of a sweep.
    """
    if any(argument in ("-m", "--multirun") for argument in arguments):
        raise ConfigError(
            "-m under torchrun: the processes of torchrun train one run; a sweep runs its jobs by hydra/launcher"
        )
    folder = launch.remembered()
    if folder is None:
        return list(arguments)
    quoted = "'" + str(folder).replace("\\", "\\\\").replace("'", "\\'") + "'"
    if not (folder / RECORD).is_file():
        return [*arguments, f"hydra.run.dir={quoted}"]
    if is_resume(arguments):  # and what is typed beside it counts still
        others = [argument for argument in arguments if not argument.startswith(f"{KEY}=")]
    else:
        others = [argument for argument in arguments if argument.lstrip("+").startswith(KEPT)]
    return [f"{KEY}={quoted}", *others]


def follow_first(launch: Launch) -> int:
    """Be another process than the first: train what that one says, and return an exit code.

    Raises:
        UserError: data, weights or settings cannot be used here.
    """
    try:
        with terminable():
            task = launch.task()
            if task is not None:
                with importing():
                    from tl_experiments.experiment import follow_experiment  # noqa: PLC0415 - not before there is a task

                follow_experiment(from_plain(task))
    except StoppedTogether:
        launch.wait_for_first()
        return 143
    except (KeyboardInterrupt, Terminated):
        return 143
    except RankLost:
        return 1  # the first process tells it, or the one that is lost told why
    except Exception as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # of torchrun, as others end by this: the reason is told first
        if launch.error_of_first(seconds=FIRST_SECONDS) == str(error):
            return 1  # one that all have is told once
        raise
    return 0
