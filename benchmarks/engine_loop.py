"""Steps of the project's own engine, on the path that an experiment takes."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hydra import compose, initialize_config_dir
from plain_loop import IMAGE_SIZE, LR, MOMENTUM, synchronise

from tl_experiments import build
from tl_experiments.config.member import Member, checked, make_uid
from tl_experiments.config.register import register
from tl_experiments.engine.records import Progress, Record
from tl_experiments.runtime.process import choose_device
from tl_experiments.strategies.base import Materials

CONF = Path(__file__).resolve().parent.parent / "conf"


class EngineLoop:
    """`strategy=finetune augmentation=light runtime=auto`: one run that goes on from round to round.

    Attributes:
        compute: the precision and layout that the project's table gives.
        decoding_seconds: what reading and decoding the images took, once, before the first step.
    """

    def __init__(self, subset: Path, backbone: str, *, batch_size: int) -> None:
        """Build what an experiment builds, in its order."""
        member = _make_member(
            *("strategy=finetune", "optimizer=sgd", f"optimizer.momentum={MOMENTUM}", "augmentation=light"),
            *(f"backbone={backbone}", "backbone.weights=null", f"backbone.image_size={IMAGE_SIZE}", f"lr={LR}"),
            *("dataset=image_folder", f"dataset.root={subset}", f"batch_size={batch_size}", "epochs=1000"),
        )
        self._batch_size, self._device = batch_size, choose_device(member.config["runtime"]["device"])
        strategy, dataset = build.build_strategy(member), build.build_dataset(member)
        network = build.build_backbone(member, dataset=dataset)
        self.compute = build.build_compute(member, device=self._device, backbone=network, strategy=strategy)
        start = time.perf_counter()
        workload = strategy.prepare(
            Materials(
                backbone=network.to(device=self._device, memory_format=self.compute.memory_format),  # type: ignore[call-overload]
                num_classes=dataset.num_classes,
                images=build.build_images(member, dataset=dataset, backbone=network, watch=Silent()),
                augmentation=build.build_augmentation(member, dataset=dataset),
                batch_size=batch_size,
                epochs=member.config["epochs"],
                seeds=(member.config["seed"],),
                compute=self.compute,
                cache=member.config["runtime"]["cache"],
                watch=Silent(),
            )
        )
        self.decoding_seconds = time.perf_counter() - start
        trainer = build.build_trainer(
            member,
            workload,
            optimizers=[build.build_optimizer(member)],
            schedulers=[build.build_scheduler(member)],
            device=self._device,
        )
        self._records: Iterator[Record] = iter(trainer.fit())

    def __call__(self, warmup: int, steps: int) -> float:
        """Images/s of training steps."""
        self._train(warmup)
        return steps * self._batch_size / self._train(steps)

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


class Silent:
    """Told of long work, says nothing."""

    def notice(self, text: str) -> None: ...

    def work(self, title: str) -> Callable[[int, int], None]:  # noqa: ARG002 - the protocol's signature
        return lambda done, total: None  # noqa: ARG005


def _make_member(*overrides: str) -> Member:
    """Compose and check a configuration, as the door does; nothing is written."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", ["tracking=none", *overrides])
    values, _ = checked(config, folder=Path.cwd())
    return Member(config=values, choices={}, folder=Path.cwd(), name="benchmark", uid=make_uid())
