"""Heads that are solved for, without gradient steps, on a frozen backbone's features of the images as they are."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from torch import nn

from tl_experiments.data.augmentation import Augmentation
from tl_experiments.data.batches import Batches
from tl_experiments.data.mixing import Mixing
from tl_experiments.strategies.base import Phase, Strategy
from tl_experiments.strategies.materials import Materials, SplitBatches


class Solved(Strategy):
    """What strategies that solve for their head have in common."""

    trains_backbone: ClassVar[bool] = False
    learns_from_features: ClassVar[bool] = True
    takes_steps: ClassVar[bool] = False

    def runs_because(self, augmentation: Augmentation, mixing: Mixing) -> str | None:  # noqa: ARG002 - neither counts
        return None


def solved_phase(
    materials: Materials,
    module: nn.Module,
    *,
    name: str,
    values: Mapping[str, Sequence[float]],
    open: Callable[[], SplitBatches],
    solve: Callable[[Batches, int], None],
) -> Phase:
    """Solve for a head, an epoch for each value of what is chosen on val, and say so.

    Args:
        materials: of a lone member.
        module: what `open` yields → logits (1, B, C).
        name: of the phase.
        values: the name of what is chosen → its candidates, in the order of the epochs.
        open: returns the batches.
        solve: puts weights in place, given train and the number of the epoch, from 1.
    """
    [(setting, candidates)] = values.items()
    materials.watch.notice(
        f"{name}: an epoch for each {setting} of {', '.join(f'{value:.4g}' for value in candidates)}, on features of "
        "the images as they are; lr, epochs, optimizer, scheduler, head, sampler, augmentation have no part in it"
    )
    return Phase(
        name=name,
        module=module,
        trained=frozenset(),
        held_in_eval=(),
        epochs=len(candidates),
        open=open,
        train_precision=materials.compute.infer,
        infer_precision=materials.compute.infer,
        solve=solve,
        candidates=tuple({setting: value} for value in candidates),
    )
