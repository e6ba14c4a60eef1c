"""Whatever makes a step fast leaves the training what it is: fifty steps beside those of the plain, eager step."""

import shutil
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from tl_experiments.data.batches import ImageBatches
from tl_experiments.data.images import load_images
from tl_experiments.data.source import ArraySource, Split
from tl_experiments.data.transforms import Canvas, Normalise
from tl_experiments.engine import schedulers
from tl_experiments.engine.options import TrainingOptions
from tl_experiments.engine.records import Progress
from tl_experiments.engine.trainer import Trainer
from tl_experiments.engine.updates import make_updates
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.head_kinds import linear_head
from tl_experiments.models.input_spec import InputSpec
from tl_experiments.models.model import Model
from tl_experiments.models.param_groups import all_parts, param_groups
from tl_experiments.runtime.precision import Precision
from tl_experiments.runtime.seeding import seeded
from tl_experiments.strategies.base import Phase, Workload, names
from tl_experiments.strategies.materials import SplitBatches
from tl_experiments.strategies.one_member import OneMember

CPU = torch.device("cpu")
SIZE, NUM_IMAGES, NUM_CLASSES, BATCH_SIZE, NUM_STEPS = 16, 40, 4, 8, 50
SPEC = InputSpec(size=SIZE, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_pct=1.0)


def make_workload(*, precision: str, memory_format: torch.memory_format) -> Workload:
    """Convolutions with BatchNorm, fine-tuned on noise whose colour is its class."""
    rng = np.random.default_rng(0)
    labels = np.arange(NUM_IMAGES) % NUM_CLASSES
    pixels = rng.integers(0, 160, (NUM_IMAGES, SIZE, SIZE, 3), dtype=np.uint8) + (labels * 30)[:, None, None, None]
    images = load_images(
        Split("train", ArraySource(pixels.astype(np.uint8), labels, "noise"), np.arange(NUM_IMAGES)),
        canvas=Canvas(size=SIZE, crop=SIZE, interpolation="bilinear"),
        workers=0,
        memory_bytes=10**8,
    )
    with seeded(0):
        body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
    backbone = Backbone(body, name="small", feature_dim=32, input_spec=SPEC, weights_id="none")
    model = Model(backbone, linear_head(feature_dim=32, num_classes=NUM_CLASSES, seed=0))
    model.to(memory_format=memory_format)  # type: ignore[call-overload]
    batches = ImageBatches(
        images=images,
        size=SIZE,
        normalise=Normalise(SPEC.mean, SPEC.std),
        batch_size=BATCH_SIZE,
        device=CPU,
        seed=0,
        memory_format=memory_format,
    )
    phase = Phase(
        name="finetune",
        module=OneMember(model),
        trained=names(model),
        held_in_eval=(),
        epochs=NUM_STEPS * BATCH_SIZE // NUM_IMAGES,
        open=lambda: SplitBatches(
            train=batches,
            val=batches,
            at_the_end=lambda: (batches, batches),
        ),
        train_precision=Precision(precision, "cpu"),
        infer_precision=Precision("fp32", "cpu"),
    )
    return Workload(
        phases=(phase,),
        groups=param_groups(model, all_parts(model), has_member_axis=False),
        deployables=(model,),
        trained=frozenset(model.state_dict()),
    )


def losses(
    *,
    precision: str = "fp32",
    memory_format: torch.memory_format = torch.contiguous_format,
    fused: bool = False,
    compile: bool = False,
) -> list[float]:
    """The running mean of the loss after each step."""
    workload = make_workload(precision=precision, memory_format=memory_format)
    trainer = Trainer(
        workload,
        updates=make_updates(
            workload.groups,
            optimizers=[partial(torch.optim.AdamW, lr=1e-3)],
            schedulers=[schedulers.constant],
            fused=fused,
        ),
        device=CPU,
        options=TrainingOptions(seed=0, log_every_steps=1, compile=compile),
    )
    steps = [record for record in trainer.fit() if isinstance(record, Progress) and record.stage == "train"]
    return [record.loss[0] for record in steps if record.loss is not None]


@pytest.fixture(scope="module")
def plain() -> list[float]:
    found = losses()
    assert len(found) == NUM_STEPS
    assert found[-1] < 0.8 * found[0], "it learns"
    return found


def test_the_layout_is_another_order_of_the_same_numbers(plain: list[float]) -> None:
    assert losses(memory_format=torch.channels_last) == pytest.approx(plain, rel=1e-3)


def test_a_fused_optimizer_makes_the_same_steps(plain: list[float]) -> None:
    fused = losses(fused=True)
    assert fused == pytest.approx(plain, rel=1e-3)
    assert fused != plain, "nothing was fused"


def test_bfloat16_learns_as_float32_does(plain: list[float]) -> None:
    rounded = losses(precision="bf16")
    assert rounded == pytest.approx(plain, rel=0.1)
    assert rounded != plain, "nothing was rounded"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_step_is_the_eager_one(plain: list[float]) -> None:
    assert losses(compile=True) == pytest.approx(plain, rel=1e-2)
