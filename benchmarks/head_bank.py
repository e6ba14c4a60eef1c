"""Measure training alone of many heads on the same features: one bank against one head after the other.

    python benchmarks/head_bank.py                      50 heads on 1,800 x 1,280 made-up features, 10 classes
    python benchmarks/head_bank.py --heads 8            fewer heads
    python benchmarks/head_bank.py --save               the same, and writes it to benchmarks/results/

Heads differ by their learning rate, AdamW, cosine, batches of 32; once with a seed each, so that every head begins
otherwise and sees its own order, and once with one seed for all.

Ours: the project's engine with validation and records, once a bank of all heads, then a bank of one for each head, all
of which are really trained. Plain loops: `nn.Linear`, `torch.optim.AdamW`, `cross_entropy` on rows of the features, one
head after the other, neither validation nor records.

All take turns within a round; the median round counts. Making data and heads is left out. Agreement is that of the
weights after the last step: bank against banks of one, and against the plain loops, which begin with the same weights
and see the same order.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from head_training import BATCH_SIZE, SCHEDULE, MadeUp, fit_seconds, make_bank, make_trainer, make_up
from plain_loop import synchronise
from report import Report, at_most
from torch import nn
from torch.nn.functional import cross_entropy

from tl_experiments.data.sampling import epoch_order
from tl_experiments.models.head_kinds import linear_head
from tl_experiments.runtime.allocator import keep_freed_memory
from tl_experiments.runtime.process import choose_device
from tl_experiments.runtime.seeding import derive_seed

NUM_IMAGES, FEATURE_DIM, NUM_CLASSES = 1800, 1280, 10  # as digits on the default backbone, with val
LOWEST_LR, HIGHEST_LR, WEIGHT_DECAY = 1e-4, 3e-2, 0.01
BANK, SINGLES, PLAIN = "one bank", "banks of one", "plain loops"
BAR_OF_SINGLES = 0.5  # on a CPU
BAR_OF_ONE = 1.5  # on a GPU
TOLERANCE = 1e-5  # on a GPU; a CPU gives the same bits


@dataclass(frozen=True)
class Trained:
    """Seconds of training, and the last weights: weight (K, C, D) and bias (K, C)."""

    seconds: float
    weight: torch.Tensor
    bias: torch.Tensor

    def difference(self, other: "Trained") -> torch.Tensor:
        """(K,) largest absolute difference of each head."""
        weights, biases = (self.weight - other.weight).abs(), (self.bias - other.bias).abs()
        return torch.maximum(weights.amax(dim=(1, 2)), biases.amax(dim=1))


def train_bank(data: MadeUp, *, seeds: Sequence[int], lrs: Sequence[float], epochs: int) -> Trained:
    """All heads side by side, by the engine."""
    bank = make_bank(data, seeds=seeds)
    trainer = make_trainer(data, bank, seeds=seeds, lrs=lrs, epochs=epochs, optimizer=torch.optim.AdamW)
    return Trained(fit_seconds(trainer, data.device), bank.weight.detach(), bank.bias.detach())


def train_singles(data: MadeUp, *, seeds: Sequence[int], lrs: Sequence[float], epochs: int) -> Trained:
    """One head after the other, by the engine."""
    return _joined(
        [train_bank(data, seeds=[seed], lrs=[lr], epochs=epochs) for seed, lr in zip(seeds, lrs, strict=True)]
    )


def train_plain(data: MadeUp, *, seeds: Sequence[int], lrs: Sequence[float], epochs: int) -> Trained:
    """One head after the other, by the loop that anyone would write."""
    return _joined([_plain_loop(data, seed=seed, lr=lr, epochs=epochs) for seed, lr in zip(seeds, lrs, strict=True)])


CONTESTANTS = {BANK: train_bank, SINGLES: train_singles, PLAIN: train_plain}


def _plain_loop(data: MadeUp, *, seed: int, lr: float, epochs: int) -> Trained:
    head = linear_head(
        feature_dim=data.features.shape[1], num_classes=data.num_classes, seed=derive_seed(seed, "head")
    ).to(data.device)
    synchronise(data.device)
    start = time.perf_counter()
    _train(head, data, seed=seed, lr=lr, epochs=epochs)
    synchronise(data.device)
    return Trained(time.perf_counter() - start, head.weight.detach()[None], head.bias.detach()[None])


def _train(head: nn.Linear, data: MadeUp, *, seed: int, lr: float, epochs: int) -> None:
    optimizer = torch.optim.AdamW(
        [{"params": [head.weight], "weight_decay": WEIGHT_DECAY}, {"params": [head.bias], "weight_decay": 0.0}], lr=lr
    )
    steps = -(-len(data.labels) // BATCH_SIZE)
    schedule = SCHEDULE(optimizer, total_steps=epochs * steps, steps_per_epoch=steps)
    for epoch in range(1, epochs + 1):
        order = torch.from_numpy(epoch_order(len(data.labels), seed=seed, epoch=epoch)).to(data.device)
        for indices in order.split(BATCH_SIZE):
            optimizer.zero_grad()
            cross_entropy(head(data.features[indices]), data.labels[indices]).backward()
            optimizer.step()
            schedule.after_step()


def _joined(parts: Sequence[Trained]) -> Trained:
    weight, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
    return Trained(sum(part.seconds for part in parts), weight, bias)


def measure(
    data: MadeUp, *, seeds: Sequence[int], lrs: Sequence[float], epochs: int, rounds: int
) -> dict[str, Trained]:
    """The median seconds of all rounds by contestant, and the weights, which are the same in every round."""
    measured: dict[str, list[Trained]] = {name: [] for name in CONTESTANTS}
    for _ in range(rounds):
        for name, train in CONTESTANTS.items():
            measured[name].append(train(data, seeds=seeds, lrs=lrs, epochs=epochs))
    return {
        name: Trained(statistics.median(each.seconds for each in values), values[0].weight, values[0].bias)
        for name, values in measured.items()
    }


def show(report: Report, measured: dict[str, Trained], *, num_steps: int, device: torch.device) -> None:
    """Print seconds, ratios and agreement."""
    num_heads = len(measured[BANK].weight)
    report.say(f"{'':24}{'seconds':>10}{'ms a step':>12}")
    for name, trained in measured.items():
        steps = num_steps * (1 if name == BANK else num_heads)
        report.say(f"{name:24}{trained.seconds:>10.3f}{1000 * trained.seconds / steps:>12.3f}")
    bank, singles, plain = (measured[name].seconds for name in (BANK, SINGLES, PLAIN))
    on_cpu = device.type == "cpu"
    for what, ratio, bar in (
        (f"bank : {num_heads} banks of one", bank / singles, BAR_OF_SINGLES if on_cpu else None),
        ("bank : one bank of one", bank / (singles / num_heads), None if on_cpu else BAR_OF_ONE),
        (f"bank : {num_heads} plain loops", bank / plain, None),
        ("bank of one : plain loop", singles / plain, None),
    ):
        report.say(f"  {what:30}{f'{ratio:.3f}x' if bar is None else at_most(ratio, bar)}")
    show_agreement(report, measured, on_cpu=on_cpu)


def show_agreement(report: Report, measured: dict[str, Trained], *, on_cpu: bool) -> None:
    """Print how far heads of the bank are from those that were trained alone."""
    alone, plain = (measured[BANK].difference(measured[name]) for name in (SINGLES, PLAIN))
    agree = alone == 0 if on_cpu else alone <= TOLERANCE
    met = "met" if bool(agree.all()) else "missed"
    how = "bit for bit" if on_cpu else f"within {TOLERANCE:g}"
    report.say(f"  equal to banks of one, {how}: {int(agree.sum())} of {len(agree)}, bar all: {met}")
    largest = float(measured[PLAIN].weight.abs().max())
    report.say(f"  largest difference from torch.optim's loops: {float(plain.max()):.1e}; largest weight {largest:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/head_bank_<device kind>.md")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    if device.type == "cpu":
        keep_freed_memory()  # as a run does
    title = (
        f"Head bank: {arguments.heads} heads x {arguments.epochs} epochs on {NUM_IMAGES:,} x {FEATURE_DIM:,} features, "
        f"{NUM_CLASSES} classes, AdamW, cosine, {arguments.rounds} round(s)"
    )
    report = Report(title, device=device, packages=("torch",))
    data = make_up(num_images=NUM_IMAGES, feature_dim=FEATURE_DIM, num_classes=NUM_CLASSES, device=device)
    lrs = np.geomspace(LOWEST_LR, HIGHEST_LR, arguments.heads).tolist()
    for train in CONTESTANTS.values():
        train(data, seeds=[0, 1], lrs=lrs[:1] * 2, epochs=1)  # the first training also plans
    for what, seeds in (("a seed each", range(arguments.heads)), ("one seed for all", [0] * arguments.heads)):
        report.say(f"\n{what}")
        measured = measure(data, seeds=list(seeds), lrs=lrs, epochs=arguments.epochs, rounds=arguments.rounds)
        show(report, measured, num_steps=arguments.epochs * -(-NUM_IMAGES // BATCH_SIZE), device=device)
    if arguments.save:
        report.save("head_bank")


if __name__ == "__main__":
    main()
