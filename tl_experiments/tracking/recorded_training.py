"""Training of which nothing is lost: records are shown and kept as they come, and checkpoints written between steps."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tl_experiments.engine.checkpoint import Checkpoints
from tl_experiments.engine.records import Diverged, EpochRecord, Halved, Record, Stopped
from tl_experiments.engine.trainer import Trainer
from tl_experiments.engine.training_plan import TrainingPlan
from tl_experiments.runtime.files import disk_fault, sync_files
from tl_experiments.runtime.ranks import ALONE, Ranks
from tl_experiments.runtime.signals import (
    StoppedTogether,
    Terminated,
    forget_stop,
    obey,
    shielded,
    stop_asked,
    wait_longer,
)
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.run_log import RunLog

Prunes = Callable[[int, float], bool]  # epoch from 1, val/acc → whether a run stops there


def show_plan(plan: TrainingPlan, *, console: Console, logs: Sequence[RunLog]) -> None:
    """Show and keep what is going to be trained; a job of a sweep that trains alone says it in a line."""
    console.plan(plan, brief=len(logs) == 1 and logs[0].in_sweep)
    for log in logs:
        log.plan(plan)


def train(
    trainer: Trainer,
    checkpoints: Checkpoints,
    *,
    console: Console,
    logs: Sequence[RunLog],
    prunes: Prunes | None = None,
    ranks: Ranks = ALONE,
) -> bool:
    """Train and test, or do what is left of it; what happens is shown and kept as it comes.

    Who is asked to stop does so after the step.

    Args:
        trainer: that has not begun.
        checkpoints: of its members.
        console: that shows.
        logs: of its members.
        prunes: asked after every epoch of a run that is trained alone.
        ranks: of the processes that train it; this one is the first, the others `follow`.

    Returns:
        Whether training came to its end; if it was pruned, the test split was not seen.
    """
    _go_on(trainer, checkpoints, console=console, logs=logs, ranks=ranks)
    with shielded():
        for record in trainer.fit():
            _tell(record, console=console, logs=logs)
            # Before the checkpoint: a run that is killed between the two trains this epoch again, and is asked again.
            if isinstance(record, EpochRecord) and _is_pruned(record, prunes):
                return False
            stops, saves = ranks.any(stop_asked(), checkpoints.due(record))
            if stops or saves:
                _save(trainer, checkpoints, console=console, logs=logs)
            _obey(stops)
        for record in trainer.test():
            _tell(record, console=console, logs=logs)
            stops, _ = ranks.any(stop_asked(), False)
            _obey(stops)
    return True


def follow(trainer: Trainer, *, ranks: Ranks) -> None:
    """Train and test along with the first process, which runs `train` and keeps what happens.

    Args:
        trainer: that has not begun; of the same workload.
        ranks: of the processes.
    """
    state = ranks.from_first(None)
    if state is not None:
        trainer.load(state)
    with shielded():
        for _ in trainer.fit():
            stops, saves = ranks.any(stop_asked(), False)
            if stops or saves:
                trainer.state()  # of which each process may have a part
            _stop_together(stops)
        for _ in trainer.test():
            stops, _ = ranks.any(stop_asked(), False)
            _stop_together(stops)


def _obey(stops: bool) -> None:
    """Stop where any process was asked to; all have made the same steps."""
    obey()
    _stop_together(stops)


def _stop_together(stops: bool) -> None:
    if stops:
        forget_stop()
        raise StoppedTogether("a process of this run was told to stop")


def _is_pruned(record: EpochRecord, prunes: Prunes | None) -> bool:
    """Ask after every epoch that is like those of other jobs; after the last there is nothing left to spare."""
    if prunes is None or record.schedule_epoch is None:
        return False
    return prunes(record.schedule_epoch, record.val_acc[0]) and record.epoch < record.num_epochs


def _save(trainer: Trainer, checkpoints: Checkpoints, *, console: Console, logs: Sequence[RunLog]) -> None:
    """Write a checkpoint, once all that it counts as told is on the disk."""
    wait_longer()
    state = trainer.state()
    try:
        for log in logs:
            log.write_rows()
        sync_files(path for log in logs for path in log.told)
    except OSError as error:
        console.notice(f"no checkpoint: {disk_fault(error)}; training goes on")
    else:
        # Members that have diverged were charged their share already; the others' clocks show what all took together.
        checkpoints.save(state, seconds=max(log.elapsed for log in logs))


def _go_on(
    trainer: Trainer, checkpoints: Checkpoints, *, console: Console, logs: Sequence[RunLog], ranks: Ranks
) -> None:
    """Begin where the last checkpoint of these members stands, or at the beginning."""
    resumed = checkpoints.resume()
    ranks.from_first(resumed and resumed.state)
    if resumed is not None:
        trainer.load(resumed.state)
        console.notice(f"goes on after epoch {resumed.state.epochs}, step {resumed.state.steps}: {resumed.folder}")
    epochs, seconds = (resumed.state.epochs, resumed.seconds) if resumed else (0, 0.0)
    for log in logs:
        log.go_on(epochs=epochs, seconds=seconds)


@contextmanager
def told_how(logs: Sequence[RunLog], *, console: Console) -> Iterator[None]:
    """Say how a run goes on that is stopped inside the block; of its jobs a sweep says it itself."""
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        for log in logs:
            if not log.in_sweep:
                console.notice(f"stopped; the run goes on by: python run.py resume={log.folder}")
        raise


def _tell(record: Record, *, console: Console, logs: Sequence[RunLog]) -> None:
    if isinstance(record, Diverged):
        console.notice(f"{logs[record.member].name}: {record.reason}; the others go on")
    if isinstance(record, Stopped):
        console.notice(f"{logs[record.member].name}: stopped after epoch {record.epoch}: {record.reason}")
    if isinstance(record, Halved):
        console.notice(
            f"memory is too small for a batch: {record.micro_batch} samples are computed at a time, and added up"
        )
    console.record(record)
    for log in logs:
        log.record(record)
