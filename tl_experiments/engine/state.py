"""What a training run is at a step boundary: immutable values, from which it goes on with the same bits."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class MemberState:
    """What is one member's own.

    Attributes:
        tensors: by name, on any device; not copies.
        reason: why the member is left alone, if its loss or gradient was not finite.
    """

    tensors: Mapping[str, torch.Tensor] = field(repr=False)
    reason: str | None = None


@dataclass(frozen=True)
class TrainerState:
    """Where training stands.

    Attributes:
        epochs: that are over, over all phases.
        epoch_steps: optimizer steps of the epoch that is going on; all of them while it is validated.
        epoch_samples: that those steps saw, of each member.
        steps: optimizer steps since training began.
        micro_batch: samples that are computed at a time, if a whole batch did not fit into memory.
        phase: name of the phase that is going on.
        members: K of them.
    """

    epochs: int
    epoch_steps: int
    epoch_samples: int
    steps: int
    micro_batch: int | None
    phase: str
    members: tuple[MemberState, ...]

    @property
    def position(self) -> tuple[int, int, int]:
        return self.epochs, self.epoch_steps, self.steps


def prefixed(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors under names in a compartment of their own."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def compartment(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of one compartment, under the names that they were put in with."""
    return {
        name.removeprefix(f"{prefix}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}/")
    }
