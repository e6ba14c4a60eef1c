"""A sweep of any size as it lies on disk after it has run, written by the program's own writers; nothing is trained."""

import csv
import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count, islice, product
from pathlib import Path

from tl_experiments.config.compose import compose_member
from tl_experiments.config.member import Member
from tl_experiments.runtime.fingerprint import fingerprint
from tl_experiments.sweep.ledger import FINISHED, PLANNED, RUNNING, Ledger
from tl_experiments.sweep.plan import Plan, PlannedJob
from tl_experiments.tracking.metrics_log import append_metrics

NUM_SEEDS = 2
NUM_EPOCHS = 10
STRATEGIES = ("feature", "finetune")
DECAYS = ("0.0", "0.001", "0.01", "0.1")
CLASSES = tuple("0123456789")
NUM_TEST = 360  # images, as the digits have
WRONG = 5  # test images that no run gets right


def make_plan(num_jobs: int, *, folder: Path) -> Plan:
    """Return a plan of so many jobs: rates, weight decays and strategies, two seeds each."""
    members = {name: compose_member([f"strategy={name}", "tracking=none"], folder=folder) for name in STRATEGIES}
    jobs = tuple(_job(index, values, members) for index, values in enumerate(islice(_values(), num_jobs)))
    return Plan(
        uid="0" * 32,
        name=folder.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        overrides=("epochs=10",),
        hydra_overrides=(),
        settings={"n_jobs": 1, "max_heads": 64},
        code={"tl_experiments": "0", "git_commit": "none"},
        jobs=jobs,
        groups=tuple((job.index,) for job in jobs),
    )


def write_sweep(plan: Plan, folder: Path) -> None:
    """Write the plan, the ledger, and the folder of each run: result, epochs and predictions."""
    folder.mkdir(parents=True)
    plan.save(folder)
    for state in (PLANNED, RUNNING, FINISHED):
        Ledger(folder).append(*({"job": job.index, "state": state} for job in plan.jobs))
    for job in plan.jobs:
        write_run(job, folder / job.folder)


def write_run(job: PlannedJob, folder: Path) -> None:
    """Write what a finished run leaves that a report reads."""
    drawn = random.Random(job.index)
    folder.mkdir()
    peak = 0.95 - 0.02 * abs(math.log10(float(job.values["lr"])) + 3) + drawn.gauss(0, 0.005)
    rows = [
        {
            "epoch": epoch,
            "train/loss": 2.3 * math.exp(-epoch / 4),
            "train/acc": peak * (1 - math.exp(-epoch)),
            "val/loss": 2.3 * math.exp(-epoch / 5) + drawn.random() / 100,
            "val/acc": peak * (1 - math.exp(-epoch)),
            "lr": float(job.values["lr"]),
            "perf/images_per_second": 1000.0,
        }
        for epoch in range(1, NUM_EPOCHS + 1)
    ]
    append_metrics(folder / "metrics.jsonl", rows)
    result = {
        "status": "FINISHED",
        "uid": job.uid,
        "run_id": f"{job.index:032x}",
        "val/acc_best": rows[-1]["val/acc"],
        "val/epoch_best": NUM_EPOCHS,
        "test/acc": peak - 0.01,
        "test/loss": 0.3,
        "test/f1_macro": peak - 0.011,
        "perf/seconds": 10 + drawn.random(),
        "seconds": 11.0,
        "num_trained_params": 12_810 if job.choices["strategy"] == "feature" else 3_400_000,
        "num_train_images": 1294,
        "dataset_fingerprint": "d",
        "device": "cpu",
        "host": "here",
    }
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "model").mkdir()
    (folder / "model" / "model.json").write_text(json.dumps({"class_names": CLASSES}))
    with (folder / "predictions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "class", "predicted", "confidence"), *_predictions(drawn, peak)])


def _predictions(drawn: random.Random, accuracy: float) -> Iterator[tuple[str, str, str, str]]:
    for index in range(NUM_TEST):
        true = index % len(CLASSES)
        right = index >= WRONG and drawn.random() < accuracy
        said = true if right else (true + drawn.randrange(1, len(CLASSES))) % len(CLASSES)
        yield f"test/{index}", CLASSES[true], CLASSES[said], f"{0.5 + drawn.random() / 2:.4f}"


def _values() -> Iterator[dict[str, str]]:
    for number in count():
        lr = f"{10 ** (-5 + 4 * (number * 0.618034 % 1)):.4g}"
        for decay, strategy, seed in product(DECAYS, STRATEGIES, range(NUM_SEEDS)):
            yield {"lr": lr, "optimizer.weight_decay": decay, "strategy": strategy, "seed": str(seed)}


def _job(index: int, values: dict[str, str], members: dict[str, Member]) -> PlannedJob:
    member = members[values["strategy"]]
    optimizer = {**member.config["optimizer"], "weight_decay": float(values["optimizer.weight_decay"])}
    own = {"lr": float(values["lr"]), "seed": int(values["seed"]), "optimizer": optimizer}
    config = json.loads(json.dumps({**member.config, **own}))
    overrides = tuple(f"{key}={value}" for key, value in values.items())
    return PlannedJob(
        index=index,
        name=f"{index} {' '.join(overrides)}",
        overrides=overrides,
        values=values,
        config=config,
        choices=dict(member.choices),
        uid=f"{index:032x}",
        folder=str(index),
        digest=fingerprint(replace(member, config=config).config),
    )
