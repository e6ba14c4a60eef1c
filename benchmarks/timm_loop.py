"""The essential steps of timm's train.py, which is not part of its package."""

from pathlib import Path
from typing import Any

import torch
from plain_loop import CROP_RATIO, CROP_SCALE, FLIP_PROB, IMAGE_SIZE, LR, MOMENTUM, Step, throughput
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from torch import nn

WORKERS = 4  # train.py's default


class TimmLoop:
    """Trains a network; `amp` is `--amp --amp-dtype bfloat16 --channels-last`."""

    def __init__(self, network: nn.Module, subset: Path, *, batch_size: int, device: torch.device, amp: bool) -> None:
        layout = torch.channels_last if amp else torch.contiguous_format
        network.to(device=device, memory_format=layout).train()  # type: ignore[call-overload]
        self._subset, self._batch_size, self._device = subset, batch_size, device
        self._step = _make_step(network, device=device, amp=amp)

    def __call__(self, warmup: int, steps: int) -> float:
        """Images/s, with cuDNN's benchmark mode as train.py sets it."""
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True
        try:
            return throughput(self._loader(), self._step, warmup=warmup, steps=steps, device=self._device)
        finally:
            torch.backends.cudnn.benchmark = before

    def _loader(self) -> Any:
        """Transforms by Pillow in workers; the prefetcher normalises on the device."""
        dataset: Any = create_dataset(
            "", root=str(self._subset), split="train", is_training=True, batch_size=self._batch_size
        )
        return create_loader(
            dataset,
            input_size=(3, IMAGE_SIZE, IMAGE_SIZE),
            batch_size=self._batch_size,
            is_training=True,
            scale=CROP_SCALE,
            ratio=CROP_RATIO,
            hflip=FLIP_PROB,
            color_jitter=0.0,  # which the others have not
            num_workers=WORKERS,
            device=self._device,
        )


def _make_step(network: nn.Module, *, device: torch.device, amp: bool) -> Step:
    """One update of train_one_epoch; the loader has put the batch on the device."""
    optimizer = create_optimizer_v2(network, opt="sgd", lr=LR, weight_decay=2e-5, momentum=MOMENTUM)
    loss_function = nn.CrossEntropyLoss()

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        if amp:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
            loss = loss_function(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
