"""Steps of the project's own engine, on what an experiment builds, in its order; the process is set by the caller."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from plain_loop import IMAGE_SIZE, LR, MOMENTUM, synchronise

from tl_experiments import build
from tl_experiments.config.compose import compose_member
from tl_experiments.config.member import Member
from tl_experiments.data.feature_batches import FeatureBatches
from tl_experiments.data.watch import UNWATCHED
from tl_experiments.engine.records import Progress, Record
from tl_experiments.runtime.place import Place
from tl_experiments.runtime.process import choose_device
from tl_experiments.runtime.ranks import ALONE

CONF = Path(__file__).resolve().parent.parent / "conf"


class EngineLoop:
    """One run that goes on from round to round.

    Attributes:
        compute: the precision and layout that the project's table gives.
        steps_per_epoch: of training.
        decoding_seconds: what reading and decoding the images took, once, before anything else.
        preparing_seconds: what the strategy did then, before the first step.
        looks_once: whether what is frozen has seen all images by then, and sees none any more.
    """

    def __init__(self, member: Member, *, keeps_activations: bool = True) -> None:
        """Build what an experiment builds, in its order.

        Args:
            member: what to run, as `loop_member` makes it.
            keeps_activations: whether frozen stages' activations may stay on the device; the images may in any case.
        """
        self._batch_size, self._device = member.config["batch_size"], choose_device(member.config["runtime"]["device"])
        start = time.perf_counter()
        ground = build.build_ground(member, who=member.name, place=Place(self._device, ALONE), watch=UNWATCHED)
        self.compute = ground.compute
        for split in (ground.images.train, ground.images.val, ground.images.test):
            split.decode(device=self._device, work=UNWATCHED.work)
        decoded = time.perf_counter()
        self.decoding_seconds = decoded - start
        materials = build.build_materials([member], ground, watch=UNWATCHED)
        workload = ground.strategy.prepare(materials if keeps_activations else replace(materials, memory_bytes=0))
        [phase] = workload.phases
        batches = phase.open()
        workload = replace(workload, phases=(replace(phase, open=lambda: batches),))
        synchronise(self._device)
        self.preparing_seconds = time.perf_counter() - decoded
        self.steps_per_epoch = len(batches.train)
        self.looks_once = isinstance(batches.train, FeatureBatches)
        trainer = build.build_trainer([member], workload, ground=ground)
        self._records: Iterator[Record] = iter(trainer.fit())

    def __call__(self, warmup: int, steps: int) -> float:
        """Images/s of training steps."""
        return steps * self._batch_size / self.seconds(warmup, steps)

    def seconds(self, warmup: int, steps: int) -> float:
        """Seconds of some training steps after a warmup."""
        self._train(warmup)
        return self._train(steps)

    def _train(self, steps: int) -> float:
        """Seconds of some training steps; validation in between is not counted."""
        seconds, done = 0.0, 0
        while done < steps:
            start = time.perf_counter()
            record = next(self._records)
            if isinstance(record, Progress) and record.stage == "train":
                done += 1
                if done == steps:
                    synchronise(self._device)
                seconds += time.perf_counter() - start
        return seconds


def loop_member(subset: Path, backbone: str, *overrides: str, batch_size: int) -> Member:
    """A run on an image folder by SGD from random weights, longer than any benchmark.

    Args:
        subset: holds train/, val/ and test/.
        backbone: its name.
        overrides: what else differs from the defaults, the strategy among them.
        batch_size: of training.
    """
    return make_member(
        *("optimizer=sgd", f"optimizer.momentum={MOMENTUM}", f"lr={LR}", f"batch_size={batch_size}", "epochs=1000"),
        *(f"backbone={backbone}", "backbone.weights=null", f"backbone.image_size={IMAGE_SIZE}"),
        *("dataset=image_folder", f"dataset.root={subset}", *overrides),
    )


def make_member(*overrides: str) -> Member:
    """Compose and check a configuration, as the door does; nothing is written."""
    return compose_member(["tracking=none", *overrides], folder=Path.cwd())
