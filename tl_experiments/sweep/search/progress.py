"""How a search went: what each of its jobs came to, the best so far, and the epochs that pruning saved."""

from collections.abc import Sequence
from dataclasses import dataclass

from tl_experiments.sweep.outcome import Outcome, read_epochs


@dataclass(frozen=True)
class Step:
    """One job of a search that is over.

    Attributes:
        outcome: of the job.
        num_trained: epochs that it trained.
        num_epochs: that it would have trained.
        val_acc: its best; None where none was finite.
        best: the highest val_acc of the jobs that finished so far, this one included; None before the first.
        leads: whether it is the first that came to `best`.
    """

    outcome: Outcome
    num_trained: int
    num_epochs: int
    val_acc: float | None
    best: float | None
    leads: bool


def search_steps(outcomes: Sequence[Outcome]) -> tuple[Step, ...]:
    """Return the jobs that are over, in the order in which they were asked for."""
    best: float | None = None
    steps = []
    for outcome in (outcome for outcome in outcomes if outcome.over):
        val_acc = outcome.result.get("val/acc_best")
        leads = outcome.finished and val_acc is not None and (best is None or val_acc > best)
        best = val_acc if leads else best
        trained = len(read_epochs(outcome))
        steps.append(Step(outcome, trained, outcome.result.get("num_epochs", trained), val_acc, best, leads))
    return tuple(steps)


def search_sentence(steps: Sequence[Step]) -> str:
    """Say in one line what pruning saved, and how the best was found."""
    trained, all_epochs = sum(step.num_trained for step in steps), sum(step.num_epochs for step in steps)
    pruned = sum(not step.outcome.finished for step in steps)
    found = ", ".join(f"{step.best:.4f} (job {step.outcome.job.index})" for step in steps if step.leads)
    saved = f"{1 - trained / all_epochs:.0%} saved" if all_epochs else "none"
    told = f"{len(steps)} jobs, {pruned} pruned: {trained} of {all_epochs} epochs trained, {saved}"
    return f"search  {told}; best so far {found or '–'}"
