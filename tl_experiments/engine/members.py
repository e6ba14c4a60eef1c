"""Which of the members that train side by side go on; one that does not is left alone, and the others see no change."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from tl_experiments.engine.metrics import Means
from tl_experiments.engine.records import Diverged, Stopped
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.strategies.base import Phase

MENDED = "try a smaller lr, or scheduler.warmup_epochs=1"


@dataclass(frozen=True)
class Patience:
    """When training ends early. It follows from the best epoch so far, so that no checkpoint has to hold it.

    Attributes:
        epochs: of the last phase without a better one, at least 1.
        start: epochs before the last phase; no member stops before it.
        num_epochs: of the run; who has made all of them has not stopped early.
    """

    epochs: int
    start: int
    num_epochs: int

    def stopped(self, member: int, *, best_epoch: int, epochs: int) -> Stopped | None:
        """Return how a member has stopped, once so many epochs are over; None while it goes on."""
        last = max(best_epoch, self.start) + self.epochs
        if last > epochs or last >= self.num_epochs:
            return None
        reason = f"{self.epochs} epoch{'s' if self.epochs > 1 else ''} were no better than epoch {best_epoch}"
        return Stopped(member=member, epoch=last, reason=reason)


def patience_in(phases: Sequence[Phase], *, epochs: int | None) -> Patience | None:
    """Return the patience with a run's last phase; None where none is asked for.

    The epochs of a phase that solves for weights are candidates, which are all to be seen.
    """
    last, num_epochs = phases[-1], sum(phase.epochs for phase in phases)
    if epochs is None or last.solve is not None:
        return None
    return Patience(epochs, start=num_epochs - last.epochs, num_epochs=num_epochs)


class Members:
    """K members: those that have diverged, those that have stopped early, and those that go on."""

    def __init__(self, count: int, *, device: torch.device, patience: Patience | None) -> None:
        """All go on.

        Args:
            count: K.
            device: of what is trained.
            patience: None stops no member.
        """
        self._count = count
        self._patience = patience
        self._diverged: dict[int, str] = {}  # and why
        self._stopped: dict[int, Stopped] = {}
        self.going_on = torch.ones(count, dtype=torch.bool, device=device)

    @property
    def any_left(self) -> bool:
        return len(self.ended) < self._count

    @property
    def ended(self) -> frozenset[int]:
        return frozenset((*self._diverged, *self._stopped))

    def reason(self, member: int) -> str | None:
        """Why a member diverged; None for others."""
        return self._diverged.get(member)

    def told_again(self) -> Iterator[Diverged | Stopped]:
        """Yield those that have ended before the run was gone on with.

        Raises:
            RunFailed: all have diverged.
        """
        self._require_any(self._diverged)
        yield from (Diverged(member=member, reason=reason) for member, reason in sorted(self._diverged.items()))
        yield from (self._stopped[member] for member in sorted(self._stopped))

    def newly_diverged(self, kind: str, means: Means, *, where: str, skips: bool) -> Iterator[Diverged]:
        """Leave members alone whose loss or gradient is not finite.

        Args:
            kind: of the loss.
            means: over the samples so far.
            where: in the run that was noticed.
            skips: a step that was left out ends no run.

        Raises:
            RunFailed: all have diverged.
        """
        reasons = {}
        for member, loss in enumerate(means.loss):
            if not math.isfinite(loss):
                reasons[member] = f"the {kind} loss is not finite in {where}; {MENDED}"
            elif not skips and any(means.num_skipped[member : member + 1]):
                reasons[member] = f"a gradient is not finite in {where}; {MENDED}"
        lost = {member: reason for member, reason in reasons.items() if member not in self.ended}
        self.leave_alone(lost)
        self._require_any(lost)
        yield from (Diverged(member=member, reason=reason) for member, reason in lost.items())

    def leave_alone(self, lost: Mapping[int, str]) -> None:
        """Go on without members that have diverged."""
        self._diverged |= lost
        for member in lost:
            self.going_on[member] = False

    def newly_stopped(self, best_epochs: Sequence[int], *, epochs: int) -> Iterator[Stopped]:
        """Go on without members that had enough patience.

        Args:
            best_epochs: of K members, so far.
            epochs: that are over.
        """
        for member, best_epoch in enumerate(best_epochs if self._patience else ()):
            assert self._patience is not None
            stopped = self._patience.stopped(member, best_epoch=best_epoch, epochs=epochs)
            if stopped is not None and member not in self.ended:
                self._stopped[member] = stopped
                self.going_on[member] = False
                yield stopped

    def _require_any(self, lost: Mapping[int, str]) -> None:
        if len(self._diverged) == self._count:
            raise RunFailed(next(iter({**lost, **self._diverged}.values())))
