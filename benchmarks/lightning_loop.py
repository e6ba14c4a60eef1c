"""A step of Lightning's Trainer; a module of its own, since Lightning may be missing."""

import logging
import time
import warnings
from typing import Any

import lightning  # pyright: ignore[reportMissingImports] - no dependency of the project
import torch
from plain_loop import synchronise
from torch import nn
from torch.utils.data import DataLoader

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")


class LightningLoop(lightning.LightningModule):
    """The plain loop's model, loss and optimizer."""

    def __init__(self, model: nn.Module, *, lr: float, momentum: float) -> None:
        super().__init__()
        self.model, self.lr, self.momentum = model, lr, momentum
        self.loss_function = nn.CrossEntropyLoss()

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        images, labels = batch
        return self.loss_function(self.model(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=self.momentum)


class Stopwatch(lightning.Callback):
    """Seconds from the end of step `warmup` to the end of step `warmup + steps`."""

    def __init__(self, *, warmup: int, steps: int) -> None:
        self.marks, self.seconds = (warmup, warmup + steps), 0.0

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        if trainer.global_step in self.marks:
            synchronise(module.device)
            self.seconds = time.perf_counter() - self.seconds


def lightning_throughput(module: LightningLoop, loader: DataLoader, *, warmup: int, steps: int) -> float:
    """Images/s of some steps after a warmup, what fetches the images included; logger and checkpoints are off."""
    stopwatch = Stopwatch(warmup=warmup, steps=steps)
    trainer = lightning.Trainer(
        max_steps=warmup + steps,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[stopwatch],
    )
    trainer.fit(module, loader)
    return steps * (loader.batch_size or 1) / stopwatch.seconds
