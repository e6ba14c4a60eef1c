"""The runs of a sweep side by side: seeds gathered into one row each, ranked by val, and what they can prove."""

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from tl_experiments.config.member import label
from tl_experiments.sweep.notes import comparability_notes, data_changed
from tl_experiments.sweep.outcome import Outcome, read_epochs
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.predictions import Predictions, read_predictions
from tl_experiments.sweep.statistics import Sample, Spread, Verdict, judge, unknown

SEED = "seed"
OF_THE_TEST = (
    "test/acc_top5", "test/f1_macro", "test/acc_balanced", "test/loss", "test/ece", "val/temperature",
    "test/ece_calibrated", "test/loss_calibrated",
)  # fmt: skip
MEASURED = (
    "val/acc_best", "val/epoch_best", "test/acc", *OF_THE_TEST, "perf/seconds",
    "num_trained_params", "num_train_images", "run_id",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One configuration: the runs that differ by their seed alone.

    Attributes:
        rank: by mean val/acc, from 1.
        label: the values that vary, without the seed.
        values: key → value as typed, of the keys that vary and that it takes, without the seed.
        outcomes: of its finished runs, in planned order; at least one.
        num_planned: runs that were planned.
        val_acc: best val/acc of each run; None where no run has a finite one, as for the other spreads.
        test_acc: test/acc of each run at its best epoch.
        seconds: that each run took.
        num_trained_params: parameters that training changes.
        num_train_images: that each run learned from.
        best: its run of highest val/acc, of equal ones the first.
    """

    rank: int
    label: str
    values: Mapping[str, str]
    outcomes: tuple[Outcome, ...]
    num_planned: int
    val_acc: Spread | None
    test_acc: Spread | None
    seconds: Spread | None
    num_trained_params: int | None
    num_train_images: int | None
    best: Outcome

    def spread(self, key: str) -> Spread | None:
        """Return a metric of its runs; None where no run has a finite one."""
        return _spread(self.outcomes, key)

    def shown(self, key: str) -> str:
        """Return a value as it stands under its key: as names show it, a key that it does not take as a dash."""
        return label(key, self.values[key]).removeprefix(f"{key}=") if key in self.values else "–"


@dataclass(frozen=True)
class Comparison:
    """A sweep's results.

    Attributes:
        keys: that vary over the sweep, without the seed.
        rows: best first: highest mean val/acc; of equal ones lowest mean val/loss at the best epochs, as the best
            epoch of a run is chosen; of those the one planned first. The test split has no say.
        outcomes: of all jobs, in planned order.
        verdict: whether the first row and the second can be told apart.
        notes: sentences about what makes the numbers less comparable than they look.
        is_search: whether the jobs were found while it ran.
    """

    keys: tuple[str, ...]
    rows: tuple[Row, ...]
    outcomes: tuple[Outcome, ...]
    verdict: Verdict
    notes: tuple[str, ...]
    is_search: bool = False

    @cached_property
    def of_the_test(self) -> tuple[str, ...]:
        """The metrics of the test, beside test/acc, that any row has."""
        return tuple(key for key in OF_THE_TEST if any(row.spread(key) for row in self.rows))

    @property
    def winner(self) -> Row | None:
        """The first row; None where no run finished with a val/acc."""
        return self.rows[0] if self.rows and self.rows[0].val_acc else None

    @property
    def unfinished(self) -> tuple[Outcome, ...]:
        """What failed, was killed, still runs or was not run yet, in planned order."""
        return tuple(outcome for outcome in self.outcomes if not outcome.over)

    @property
    def pruned(self) -> tuple[Outcome, ...]:
        """What a search has stopped, in planned order."""
        return tuple(outcome for outcome in self.outcomes if outcome.over and not outcome.finished)

    @cached_property
    def images_differ(self) -> bool:
        """Whether rows learned from different numbers of images."""
        return len({row.num_train_images for row in self.rows}) > 1

    @cached_property
    def params_differ(self) -> bool:
        """Whether rows train different numbers of parameters."""
        return len({row.num_trained_params for row in self.rows}) > 1

    def winner_sentence(self) -> str:
        """Name the winner and its figures in one line, for people."""
        if self.winner is None:
            return "no run finished with a val/acc, so that there is no best one"
        row, test = self.winner, self.winner.test_acc
        figures = f"val/acc {row.val_acc.text() if row.val_acc else '–'}, test/acc {test.text() if test else '–'}"
        seeds = f" (mean ± sd of {len(row.outcomes)} seeds)" if len(row.outcomes) > 1 else ""
        return f"best by val/acc: {row.label}: {figures}{seeds}"

    def write_csv(self, path: Path) -> None:
        """Write a line for each job, in planned order; what is not known stays empty."""
        keys = {key: None for outcome in self.outcomes for key in outcome.job.values if key != SEED}
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["index", "name", "state", *keys, SEED, *MEASURED, "cause"])
            for outcome in self.outcomes:
                job = outcome.job
                fixed = [job.index, job.name, outcome.state]
                varied = [job.values.get(key) for key in keys]
                measured = [outcome.result.get(key) for key in MEASURED]
                writer.writerow([*fixed, *varied, job.config.get(SEED), *measured, outcome.cause])


def compare(plan: Plan, *, outcomes: Sequence[Outcome]) -> Comparison:
    """Gather, rank and judge the jobs of a sweep, whatever became of them."""
    outcomes = sorted(outcomes, key=lambda outcome: outcome.job.index)
    rows = _rank(_rows(plan, outcomes))
    finished = [outcome for outcome in outcomes if outcome.finished]
    short = [
        f"{row.label} ({len(row.outcomes)} of {row.num_planned})" for row in rows if row.num_planned > len(row.outcomes)
    ]
    return Comparison(
        keys=tuple(key for key in plan.varied if key != SEED),
        rows=rows,
        outcomes=tuple(outcomes),
        verdict=_judge(rows),
        notes=tuple(comparability_notes(finished, short=short)),
        is_search=plan.search is not None,
    )


def varied_label(values: Mapping[str, str]) -> str:
    """Return values as names of runs show them: `finetune lr=0.001`."""
    return " ".join(label(key, value) for key, value in values.items())


def constant_overrides(plan: Plan) -> dict[str, str]:
    """Return what was typed and does not vary: key → value."""
    varied, typed = plan.varied, (override.partition("=") for override in plan.overrides)
    return {key.lstrip("+"): value for key, _, value in typed if key not in varied and not key.startswith("~")}


def _rows(plan: Plan, outcomes: Sequence[Outcome]) -> list[Row]:
    """Gather the finished runs whose configurations differ by the seed alone; the ranks come later."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        without_seed = {key: value for key, value in outcome.job.config.items() if key != SEED}
        groups.setdefault(json.dumps(without_seed, sort_keys=True, default=str), []).append(outcome)
    constant = {key: value for key, value in constant_overrides(plan).items() if not key.startswith("tracking")}
    names = [varied_label(_values(group[0])) or varied_label(constant) or "defaults" for group in groups.values()]
    times, rows = Counter(names), []
    for name, group in zip(names, groups.values(), strict=True):
        if times[name] > 1:  # paths that end alike, or a seed that reaches further than its own key
            name = " ".join(f"{key}={value}" for key, value in group[0].job.values.items())
        if any(outcome.finished for outcome in group):
            rows.append(_row(name, group))
    return rows


def _row(name: str, group: Sequence[Outcome]) -> Row:
    finished = tuple(outcome for outcome in group if outcome.finished)
    return Row(
        rank=0,
        label=name,
        values=_values(finished[0]),
        outcomes=finished,
        num_planned=len(group),
        val_acc=_spread(finished, "val/acc_best"),
        test_acc=_spread(finished, "test/acc"),
        seconds=_spread(finished, "perf/seconds"),
        num_trained_params=_count(finished, "num_trained_params"),
        num_train_images=_count(finished, "num_train_images"),
        best=max(finished, key=lambda outcome: _number(outcome, "val/acc_best", missing=-math.inf)),
    )


def _rank(rows: Sequence[Row]) -> tuple[Row, ...]:
    def worth(row: Row) -> tuple[float, float, int]:
        acc = round(row.val_acc.mean, 12) if row.val_acc else -math.inf  # means of the same values in another order
        loss = Spread.of([_best_val_loss(outcome) for outcome in row.outcomes])
        return -acc, loss.mean if loss else math.inf, row.outcomes[0].job.index

    return tuple(replace(row, rank=rank) for rank, row in enumerate(sorted(rows, key=worth), start=1))


def _best_val_loss(outcome: Outcome) -> float | None:
    best = outcome.result.get("val/epoch_best")
    return next((row.get("val/loss") for row in read_epochs(outcome) if row.get("epoch") == best), None)


def _judge(rows: Sequence[Row]) -> Verdict:
    """Compare the first two rows, where both were tested on the same images."""
    ranked = [row for row in rows if row.val_acc]
    if len(ranked) < 2:
        what = "Only one configuration has a result" if ranked else "No configuration has a result"
        return unknown(f"{what}, so that there is nothing to compare.")
    first, second = ranked[:2]
    names = f"Whether {first.label} and {second.label} differ cannot be said: "
    if data_changed([first.best, second.best]):
        return unknown(f"{names}they saw different data under the same settings.")
    said = [read_predictions(row.best.folder) for row in (first, second)]
    if said[0] and said[1] and not said[0].same_test(said[1]):
        return unknown(f"{names}they were tested on different images.")
    return judge(_sample(first, said[0]), second=_sample(second, said[1]))


def _sample(row: Row, predictions: Predictions | None) -> Sample:
    accuracies = (_number(outcome, "test/acc", missing=math.nan) for outcome in row.outcomes)
    right = predictions.right if predictions and len(row.outcomes) == 1 else None
    return Sample(row.label, tuple(acc for acc in accuracies if math.isfinite(acc)), right)


def _values(outcome: Outcome) -> dict[str, str]:
    return {key: value for key, value in outcome.job.values.items() if key != SEED}


def _number(outcome: Outcome, key: str, *, missing: float) -> float:
    value = outcome.result.get(key)
    return value if value is not None and math.isfinite(value) else missing


def _count(outcomes: Sequence[Outcome], key: str) -> int | None:
    """Return what the seeds of a row share; of an older version's runs it may not be known."""
    return next((count for outcome in outcomes if (count := outcome.result.get(key)) is not None), None)


def _spread(outcomes: Sequence[Outcome], key: str) -> Spread | None:
    return Spread.of([outcome.result.get(key) for outcome in outcomes])
