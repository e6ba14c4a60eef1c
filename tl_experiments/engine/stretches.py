"""Where in a run its phases and their schedules lie, in epochs counted over all phases."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tl_experiments.strategies.base import Phase


@dataclass(frozen=True)
class Stretch:
    """One phase in its place.

    Attributes:
        phase: the phase.
        start: epochs before it.
        end: epochs that are over when it is.
        schedule_start: epochs before the schedule under which it trains.
        schedule_epochs: over which that schedule runs.
    """

    phase: Phase
    start: int
    end: int
    schedule_start: int
    schedule_epochs: int


def stretches(phases: Sequence[Phase]) -> Iterator[Stretch]:
    """Yield the phases of a run in order; a phase that continues shares the schedule of the one before."""
    start = schedule_start = schedule_epochs = 0
    for index, phase in enumerate(phases):
        if index == 0 or not phase.continues:
            schedule_start, schedule_epochs = start, phase.epochs
            for later in phases[index + 1 :]:
                if not later.continues:
                    break
                schedule_epochs += later.epochs
        yield Stretch(phase, start, start + phase.epochs, schedule_start, schedule_epochs)
        start += phase.epochs
