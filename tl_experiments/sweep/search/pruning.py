"""What a job of a search asks after each of its epochs: whether to stop there."""

from collections.abc import Callable
from pathlib import Path

from tl_experiments.sweep.outcome import read_outcomes
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.search.trials import read_trials, read_val_acc


def pruning(plan: Plan, folder: Path, *, index: int) -> Callable[[int, float], bool] | None:
    """Return what says after an epoch and its val/acc whether a job stops; None where no job ever does.

    Epochs are numbered from 1 under a job's last schedule, which is where jobs of different strategies are alike.

    It compares with the jobs of earlier batches, which have ended: not with those at its side, so that the answer does
    not depend on which of them is the faster.

    Args:
        plan: of the sweep.
        folder: of the sweep, absolute.
        index: of the job.
    """
    if plan.search is None or plan.search.pruner == "none":
        return None
    search, judges = plan.search, []

    def prunes(epoch: int, val_acc: float) -> bool:
        if not judges:
            from tl_experiments.sweep.search.study import Judge  # noqa: PLC0415 - Optuna is optional

            earlier = read_trials(plan, folder, number=search.before(index))
            judges.append(Judge(search, earlier=earlier, index=index))
            own = read_val_acc(*read_outcomes(plan, folder, of=[index]))  # of a job that goes on, the epochs before too
            for before, acc in enumerate(own[: epoch - 1], start=1):
                judges[0].prunes(before, acc)
        return judges[0].prunes(epoch, val_acc)

    return prunes
