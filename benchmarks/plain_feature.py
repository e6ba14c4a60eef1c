"""`strategy=feature` as a tutorial would write it, to compare what it reaches with what the fast path reaches.

Shared with run.py: configuration, dataset, splits, decoded images, weights and seeds, and with the seeds the order of
the samples. Everything else is PyTorch's own: the backbone as it is, nothing folded, float32, contiguous; one
`nn.Linear`; `torch.optim.AdamW` without `fused` or `foreach`; a cosine by `LambdaLR`.
"""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from engine_loop import make_member
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.transforms.functional import center_crop, normalize

from tl_experiments import build
from tl_experiments.data.images import Images
from tl_experiments.data.sampling import epoch_order
from tl_experiments.data.watch import UNWATCHED
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.head_kinds import linear_head
from tl_experiments.runtime.process import choose_device
from tl_experiments.runtime.seeding import derive_seed

NUM_AT_ONCE = 32  # images in one pass through the backbone


@dataclass(frozen=True)
class Reached:
    """Means over a split."""

    acc: float
    loss: float


@dataclass(frozen=True)
class Samples:
    """Features (N, D) float32 and labels (N,) of a split, on the device."""

    features: torch.Tensor = field(repr=False)
    labels: torch.Tensor = field(repr=False)


def plain_feature(*overrides: str) -> Reached:
    """Train a head and test it once, at its best epoch: highest val/acc, of equal ones lowest val/loss.

    Args:
        overrides: as of run.py; optimizer and scheduler stay the defaults.
    """
    member = make_member("strategy=feature", "augmentation=none", "runtime.cache=false", *overrides)
    device = choose_device(member.config["runtime"]["device"])
    dataset = build.build_dataset(member)
    backbone = build.build_backbone(member, dataset=dataset, strategy=build.build_strategy(member)).eval().to(device)
    images = build.build_images(member, dataset=dataset, backbone=backbone, watch=UNWATCHED)
    train, val, test = (_look(backbone, split, device) for split in (images.train, images.val, images.test))
    head = linear_head(
        feature_dim=backbone.feature_dim,
        num_classes=dataset.num_classes,
        seed=derive_seed(member.config["seed"], "head"),
    ).to(device)
    return _reached(_best_head(head, train, val, config=member.config), test)


@torch.no_grad()
def _look(backbone: Backbone, images: Images, device: torch.device) -> Samples:
    """Pass all images of a split through the backbone."""
    spec, features = backbone.input_spec, []
    positions = np.arange(len(images))
    for canvases in images.batches(np.split(positions, positions[NUM_AT_ONCE::NUM_AT_ONCE])):
        pixels = center_crop(canvases, [spec.size, spec.size]).float() / 255
        features.append(backbone(normalize(pixels, list(spec.mean), list(spec.std)).to(device)))
    return Samples(torch.cat(features), images.labels.to(device))


def _best_head(head: nn.Linear, train: Samples, val: Samples, *, config: dict[str, Any]) -> nn.Linear:
    """Train with validation after every epoch; returns a copy of the best."""
    batch_size, num_epochs, num_samples = config["batch_size"], config["epochs"], len(train.labels)
    # A trailing batch of one sample is left out, as the engine does.
    num_used = num_samples - (num_samples > batch_size > 1 and num_samples % batch_size == 1)
    total_steps = num_epochs * math.ceil(num_used / batch_size)
    optimizer = _make_optimizer(head, **config["optimizer"])
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / total_steps))
    )
    best, best_head = (-1.0, 0.0), head
    for epoch in range(1, num_epochs + 1):
        order = torch.from_numpy(epoch_order(num_samples, seed=config["seed"], epoch=epoch))
        for chosen in order[:num_used].to(train.labels.device).split(batch_size):
            optimizer.zero_grad()
            cross_entropy(head(train.features[chosen]), train.labels[chosen]).backward()
            optimizer.step()
            scheduler.step()
        reached = _reached(head, val)
        if (reached.acc, -reached.loss) > best:
            best, best_head = (reached.acc, -reached.loss), copy.deepcopy(head)
    return best_head


def _make_optimizer(
    head: nn.Linear, *, lr: float, weight_decay: float, betas: list[float], eps: float, **names: object
) -> torch.optim.Optimizer:
    """AdamW step by step; the bias does not decay."""
    if names["_target_"] != "torch.optim.AdamW":
        raise SystemExit(f"error: the plain path has AdamW alone, not {names['_target_']}")
    groups = [{"params": [head.weight]}, {"params": [head.bias], "weight_decay": 0.0}]
    return torch.optim.AdamW(
        groups, lr=lr, weight_decay=weight_decay, betas=(betas[0], betas[1]), eps=eps, foreach=False, fused=False
    )


@torch.no_grad()
def _reached(head: nn.Linear, samples: Samples) -> Reached:
    logits = head(samples.features)
    acc = (logits.argmax(dim=1) == samples.labels).double().mean()
    return Reached(acc=float(acc), loss=float(cross_entropy(logits, samples.labels)))
