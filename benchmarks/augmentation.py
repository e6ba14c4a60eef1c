"""Measure augmentation alone: whole batches on the device against torchvision's transforms, one image after the other.

    python benchmarks/augmentation.py              options of conf/augmentation at 64 and 224 px
    python benchmarks/augmentation.py --save       the same, and writes it to benchmarks/results/

ours        parameters hashed for the batch, `apply`, normalised; the batch begins as uint8 on the device
PIL         torchvision.transforms.v2 on PIL images, the recipe of its references: RandomResizedCrop, flip, policy, to
            float, normalise, RandomErasing; then stacked and sent to the device
tensors     the same on uint8 tensors

Crops, policy and erasing are the same spaces for all; images are decoded before and have the output's size. torchvision
runs in one process, as the program's training process would: with W workers, divide by no more than W. All take turns
within a round; the median round counts.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from plain_loop import synchronise
from report import Report, verdict
from torchvision.transforms import v2

from tl_experiments.data.augmentation import Augmentation, apply
from tl_experiments.data.policies import RandAugment, TrivialAugment
from tl_experiments.data.transforms import Normalise
from tl_experiments.runtime.allocator import keep_freed_memory
from tl_experiments.runtime.process import choose_device

BATCH_SIZE = 64
SIZES = (64, 224)
SCALE, RATIO, ERASE_PROB = (0.08, 1.0), (0.75, 4 / 3), 0.1
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN = Augmentation(hflip_prob=0.5, rotation_degrees=0.0, scale=SCALE, ratio=RATIO, erase_prob=0.0)
ERASING = {**vars(PLAIN), "erase_prob": ERASE_PROB}
KINDS: dict[str, tuple[Augmentation, list[torch.nn.Module]]] = {
    "crop and flip": (PLAIN, []),
    "trivial": (TrivialAugment(**ERASING), [v2.TrivialAugmentWide()]),
    "randaugment": (RandAugment(**ERASING, num_ops=2, magnitude=9), [v2.RandAugment(num_ops=2, magnitude=9)]),
}
BAR = 1.0  # of ours to the faster of theirs
Batch = Callable[[int], torch.Tensor]


def ours(images: torch.Tensor, augmentation: Augmentation) -> Batch:
    """Make batches from uint8 (B, 3, S, S) on the device."""
    normalise, indices, size = Normalise(mean=MEAN, std=STD), np.arange(len(images)), images.shape[-1]
    return lambda epoch: normalise(apply(images, augmentation.parameters(indices, seed=0, epoch=epoch), size=size))


def theirs(
    samples: list, policy: list[torch.nn.Module], *, size: int, erase_prob: float, device: torch.device
) -> Batch:
    """Make batches from PIL images or tensors, one image after the other."""
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=SCALE, ratio=RATIO),
            v2.RandomHorizontalFlip(),
            *policy,
            *([] if isinstance(samples[0], torch.Tensor) else [v2.PILToTensor()]),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
            *([v2.RandomErasing(erase_prob)] if erase_prob else []),
        ]
    )
    return lambda _: torch.stack([transform(sample) for sample in samples]).to(device)


def make_images(size: int) -> torch.Tensor:
    """(B, 3, S, S) uint8 with structure at several scales, as photographs have."""
    noise = torch.rand(BATCH_SIZE, 3, size // 8, size // 8, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(noise, size=(size, size), mode="bicubic")
    return (255 * smooth).clamp(0, 255).to(torch.uint8)


def measure(contestants: dict[str, Batch], *, device: torch.device, rounds: int) -> dict[str, float]:
    """Images/s of each: the median round."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, batch in contestants.items():
            synchronise(device)
            start = time.perf_counter()
            batch(number)
            synchronise(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: BATCH_SIZE / statistics.median(values[1:]) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/augmentation_<device kind>.md")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    if device.type == "cpu":
        keep_freed_memory()  # as a run does
    title = f"Augmentation: batches of {BATCH_SIZE}, {arguments.rounds} round(s), erasing with a chance of {ERASE_PROB}"
    report = Report(title, device=device, packages=("torch", "torchvision", "pillow"))
    report.say(f"{'':24}{'ours':>10}{'PIL':>10}{'tensors':>10}   images/s")
    for size in SIZES:
        tensors = make_images(size)
        pictures = [v2.functional.to_pil_image(image) for image in tensors]
        for name, (augmentation, policy) in KINDS.items():
            options = {"size": size, "erase_prob": augmentation.erase_prob, "device": device}
            contestants = {
                "ours": ours(tensors.to(device), augmentation),
                "PIL": theirs(pictures, policy, **options),
                "tensors": theirs(list(tensors), policy, **options),
            }
            speeds = measure(contestants, device=device, rounds=arguments.rounds)
            ratio = speeds["ours"] / max(speeds["PIL"], speeds["tensors"])
            columns = "".join(f"{speed:>10,.0f}" for speed in speeds.values())
            report.say(f"{size:>4} px {name:16}{columns}   ours : faster of theirs {verdict(ratio, BAR)}")
    if arguments.save:
        report.save("augmentation")


if __name__ == "__main__":
    main()
