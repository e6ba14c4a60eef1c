"""How a workload is trained, beside what its optimizers and schedules do."""

from dataclasses import dataclass

from tl_experiments.engine.loss import PLAIN, Loss


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What all members share.

    Attributes:
        loss: what gradient steps minimise.
        seed: of dropout.
        log_every_steps: steps between two looks at the loss; the device is not waited for.
        compile: run the modules under `torch.compile`.
        skips_nonfinite: go on without steps whose loss or gradient is not finite; else they end a member's run.
        halves: compute batches in smaller parts when memory does not hold them; else that is an error.
        micro_batch: samples that are computed at a time, from the beginning; None is a whole batch.
        ema_decay: in (0, 1), of averages of the weights, which take their place wherever these are evaluated or kept;
            None makes none.
        patience: epochs of the last phase without a better one after which a member's training ends; None is no end.
    """

    loss: Loss = PLAIN
    seed: int
    log_every_steps: int
    compile: bool = False
    skips_nonfinite: bool = False
    halves: bool = False
    micro_batch: int | None = None
    ema_decay: float | None = None
    patience: int | None = None
