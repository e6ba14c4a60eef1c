"""Sweeps as they lie on disk after they have run: made by hand, small, and as odd as a test wants them."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tl_experiments.sweep.outcome import Outcome
from tl_experiments.sweep.plan import Plan, PlannedJob
from tl_experiments.tracking.result import read_result

DIGITS = {
    "_target_": "tl_experiments.data.digits.digits",
    "train_size": None,
    "val_fraction": 0.1,
    "split_seed": 0,
    "image_size": 64,
    "crop_pct": 1.0,
}
CLASSES = ("cat", "dog", "owl")
TRUE = ("cat", "dog", "owl", "owl")  # classes of the test images that a run predicts unless told otherwise


class Sweep:
    """Collects jobs, each with the files of a finished run, and gives the plan and the outcomes."""

    def __init__(self, folder: Path, *, overrides: Sequence[str] = ()) -> None:
        self.folder = folder
        self.outcomes: list[Outcome] = []
        self._overrides = tuple(overrides)

    @property
    def plan(self) -> Plan:
        jobs = tuple(outcome.job for outcome in self.outcomes)
        return Plan(
            uid="0" * 32,
            name="birds",
            created="2026-01-02T03:04:05+00:00",
            overrides=self._overrides,
            hydra_overrides=(),
            settings={},
            code={"tl_experiments": "0.1.0", "git_commit": "abc", "torch": "2.11.0"},
            jobs=jobs,
            groups=tuple((job.index,) for job in jobs),
        )

    def job(self, values: Mapping[str, str], *, config: Mapping[str, Any] | None = None) -> PlannedJob:
        index = len(self.outcomes)
        seed = int(values.get("seed", 0))
        return PlannedJob(
            index=index,
            name=" ".join([str(index), *(f"{key}={value}" for key, value in values.items())]),
            overrides=tuple(f"{key}={value}" for key, value in values.items()),
            values=dict(values),
            config={
                "seed": seed,
                "allow_targets": [],
                "dataset": DIGITS,
                "swept": without_seed(values),
                **(config or {}),
            },
            choices={"backbone": "resnet18", "strategy": values.get("strategy", "feature"), "dataset": "digits"},
            uid=f"{index:032}",
            folder=str(index),
            digest="0" * 64,
        )

    def finished(
        self,
        values: Mapping[str, str],
        *,
        val_acc: float | None,
        test_acc: float | None = 0.5,
        config: Mapping[str, Any] | None = None,
        said: Sequence[str] | None = TRUE,
        true: Sequence[str] = TRUE,
        images: Sequence[str] | None = None,
        val_losses: Sequence[float | None] = (0.9, 0.8),
        **result: Any,
    ) -> Outcome:
        """Add a finished run; `said` None writes no predictions, the best epoch is the last."""
        job = self.job(values, config=config)
        folder = self.folder / job.folder
        (folder / "model").mkdir(parents=True)
        fields = {
            "status": "FINISHED",
            "uid": job.uid,
            "run_id": f"run-{job.index}",
            "val/acc_best": val_acc,
            "val/epoch_best": len(val_losses),
            "test/acc": test_acc,
            "test/loss": 0.7,
            "perf/seconds": 10.0 + job.index,
            "num_trained_params": 1000,
            "num_train_images": 500,
            "dataset_fingerprint": "d",
            "device": "cpu",
            "host": "here",
        }
        (folder / "result.json").write_text(
            json.dumps(fields | {key.replace("__", "/"): v for key, v in result.items()})
        )
        (folder / "model" / "model.json").write_text(json.dumps({"class_names": CLASSES}))
        with (folder / "metrics.jsonl").open("w") as file:
            for epoch, loss in enumerate(val_losses, start=1):
                row = {
                    "epoch": epoch,
                    "train/loss": loss,
                    "val/loss": loss,
                    "val/acc": None if loss is None else val_acc,
                }
                file.write(json.dumps(row) + "\n")
        if said is not None:
            write_predictions(folder, images or [f"test/{index}" for index in range(len(true))], true, said)
        return self._add(Outcome(job, folder, "FINISHED", None, read_result(folder)))

    def unfinished(self, values: Mapping[str, str], *, state: str = "FAILED", cause: str | None = "ran out") -> Outcome:
        job = self.job(values)
        (self.folder / job.folder).mkdir(parents=True)
        return self._add(Outcome(job, self.folder / job.folder, state, cause, {}))

    def _add(self, outcome: Outcome) -> Outcome:
        self.outcomes.append(outcome)
        return outcome


def without_seed(values: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in values.items() if key != "seed"}


def write_predictions(folder: Path, images: Sequence[str], true: Sequence[str], said: Sequence[str]) -> None:
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "class", "predicted", "confidence"])
        writer.writerows((*row, "0.7500") for row in zip(images, true, said, strict=True))
