"""The loop that tutorials show, and the part of an image folder that the contestants of a benchmark share."""

import argparse
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

IMAGE_SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LR, MOMENTUM = 1e-3, 0.9
FLIP_PROB, CROP_SCALE, CROP_RATIO = 0.5, (0.7, 1.0), (1.0, 1.0)  # as augmentation=light

Step = Callable[[torch.Tensor, torch.Tensor], object]


def folder_of_splits(text: str) -> Path:
    """Type of `--data`: a folder with train/ and test/, a folder per class in each."""
    root = Path(text).expanduser().resolve()
    for split in ("train", "test"):
        if not (root / split).is_dir():
            raise argparse.ArgumentTypeError(f"{root} has no {split}/; expected {root}/{split}/CLASS/*.jpg")
    return root


def link_subset(root: Path, subset: Path, *, num_train: int, num_test: int) -> None:
    """Make a stratified part of a folder, of links: as many images of every class, chosen by a fixed seed."""
    for split, count in (("train", num_train), ("test", num_test)):
        classes = sorted(folder for folder in (root / split).iterdir() if folder.is_dir())
        for position, folder in enumerate(classes):
            share = count // len(classes) + (position < count % len(classes))
            files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in datasets.folder.IMG_EXTENSIONS)
            if len(files) < share:
                raise SystemExit(f"error: {folder} holds {len(files)} images; {share} are needed")
            target = subset / split / folder.name
            target.mkdir(parents=True)
            for number, file in enumerate(random.Random(0).sample(files, share)):
                (target / f"{number}{file.suffix}").symlink_to(file)


def train_transform() -> Callable[..., torch.Tensor]:
    """Random crop and flip, by Pillow."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(IMAGE_SIZE, scale=CROP_SCALE, ratio=CROP_RATIO),
            transforms.RandomHorizontalFlip(FLIP_PROB),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def eval_transform() -> Callable[..., torch.Tensor]:
    """Resize and crop, by Pillow."""
    return transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(IMAGE_SIZE),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def make_loader(
    folder: Path, transform: Callable[..., torch.Tensor], *, batch_size: int, workers: int, train: bool
) -> DataLoader:
    """A DataLoader as tutorials make it."""
    return DataLoader(
        datasets.ImageFolder(folder, transform),
        batch_size=batch_size,
        shuffle=train,
        num_workers=workers,
    )


def make_step(model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> Step:
    """One update in float32: forward, loss, backward, optimizer."""
    loss_function = nn.CrossEntropyLoss()

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = loss_function(model(images), labels)
        loss.backward()
        optimizer.step()

    return step


def throughput(batches: Iterable, step: Step, *, warmup: int, steps: int, device: torch.device) -> float:
    """Images/s of some steps after a warmup, what fetches the images included."""
    iterator = iter(batches)
    for _ in range(warmup):
        step(*next(iterator))
    synchronise(device)
    start, num_images = time.perf_counter(), 0
    for _ in range(steps):
        images, labels = next(iterator)
        step(images, labels)
        num_images += len(labels)
    synchronise(device)
    return num_images / (time.perf_counter() - start)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
