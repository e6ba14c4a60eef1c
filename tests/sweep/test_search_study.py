"""What a search tries next and which jobs it stops: a function of its seed and the jobs before."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tl_experiments.sweep.ledger import FAILED, FINISHED, PRUNED, RUNNING
from tl_experiments.sweep.outcome import Outcome
from tl_experiments.sweep.search.settings import Parameter, Search
from tl_experiments.sweep.search.trials import Trial, read_val_acc

optuna = pytest.importorskip("optuna")

from tl_experiments.sweep.search.study import Judge, propose, write_study  # noqa: E402

SEARCH = Search(
    num_trials=40,
    sampler="tpe",
    n_startup_trials=8,
    pruner="median",
    min_trials=2,
    min_epochs=1,
    seed=0,
    max_epochs=9,
    space=(
        Parameter("strategy.backbone_lr_scale", choices=("0.1", "1")),
        Parameter("strategy", choices=("feature", "finetune")),
        Parameter("lr", low=1e-5, high=1e-1, log=True),
    ),
)


def searched(search: Search, number: int) -> list[Trial]:
    """Search for the lr of 0.01: the closer, the better."""
    trials: list[Trial] = []
    for index in range(number):
        values = propose(search, trials, attempt=0)
        score = 1.0 - abs(math.log10(float(values["lr"])) + 2.0) / 4.0
        trials.append(Trial(index, values, FINISHED, score=score, val_acc=(score / 2, score)))
    return trials


def finished(*val_acc: float, index: int = 0) -> Trial:
    return Trial(index, {"lr": "0.1"}, FINISHED, score=max(val_acc), val_acc=val_acc)


def test_the_same_seed_asks_for_the_same_jobs_and_another_for_others() -> None:
    first, again, other = searched(SEARCH, 12), searched(SEARCH, 12), searched(replace(SEARCH, seed=1), 12)
    assert first == again
    assert first[0].values != other[0].values
    assert propose(SEARCH, first, attempt=0) == propose(SEARCH, list(again), attempt=0)
    assert propose(SEARCH, first, attempt=0) != propose(SEARCH, first, attempt=1)


def test_a_key_is_drawn_for_the_options_that_have_it_alone() -> None:
    for trial in searched(SEARCH, 12):
        has_scale = "strategy.backbone_lr_scale" in trial.values
        assert has_scale == (trial.values["strategy"] == "finetune")


def test_tpe_comes_nearer_than_chance() -> None:
    scores = {}
    for sampler in ("tpe", "random"):
        late = [
            trial.score for seed in range(3) for trial in searched(replace(SEARCH, sampler=sampler, seed=seed), 30)[15:]
        ]
        scores[sampler] = sum(score or 0.0 for score in late) / len(late)
    assert scores["tpe"] > scores["random"] + 0.1


def test_what_failed_or_still_runs_teaches_nothing_wrong() -> None:
    trials = searched(SEARCH, 12)
    trials += [Trial(12, {"strategy": "feature", "lr": "0.1"}, FAILED), Trial(13, trials[3].values, RUNNING)]
    assert propose(SEARCH, trials, attempt=0)["lr"]


def test_the_median_stops_what_is_below_it_once_enough_have_finished() -> None:
    earlier = [finished(0.3, 0.6), finished(0.5, 0.8)]  # median 0.4, then 0.7
    assert not Judge(SEARCH, earlier=earlier[:1], index=1).prunes(1, 0.1)
    assert Judge(SEARCH, earlier=earlier, index=2).prunes(1, 0.39)
    above = Judge(SEARCH, earlier=earlier, index=2)
    assert not above.prunes(1, 0.41)
    assert above.prunes(2, 0.69)
    late = Judge(replace(SEARCH, min_epochs=2), earlier=earlier, index=2)
    assert not late.prunes(1, 0.39)
    assert late.prunes(2, 0.39)


def test_jobs_that_were_stopped_do_not_count_for_the_median() -> None:
    stopped = [Trial(index, {"lr": "0.1"}, PRUNED, val_acc=(0.01,)) for index in range(2, 6)]
    assert Judge(SEARCH, earlier=[finished(0.3, 0.6), finished(0.5, 0.8), *stopped], index=6).prunes(1, 0.39)


def test_epochs_that_other_strategies_have_not_are_compared_with_none(tmp_path: Path) -> None:
    probe, tuned = ({"epoch": n, "schedule_epoch": at, "val/acc": 0.9} for n, at in ((1, None), (2, 1)))
    (tmp_path / "metrics.jsonl").write_text(f"{json.dumps(probe)}\n{json.dumps(tuned | {'val/acc': 0.5})}\n")
    job: Any = None  # whose files these are
    assert read_val_acc(Outcome(job, tmp_path, RUNNING, cause=None, result={})) == (0.5,)


def test_hyperband_stops_at_its_rungs_alone_and_spares_the_best() -> None:
    search = replace(SEARCH, pruner="hyperband")
    curves = [[(job + 1) * (1 + epoch) / 200 for epoch in range(9)] for job in range(20)]
    trials: list[Trial] = []
    for index, curve in enumerate(reversed(curves)):
        judge = Judge(search, earlier=trials, index=index)
        ends = next((epoch for epoch, acc in enumerate(curve, start=1) if judge.prunes(epoch, acc)), 0)
        state = PRUNED if ends else FINISHED
        trials.append(
            Trial(index, {"lr": "0.1"}, state, score=None if ends else max(curve), val_acc=tuple(curve[: ends or 9]))
        )
    assert {len(trial.val_acc) for trial in trials if trial.state == PRUNED} <= {1, 3, 9}
    assert trials[0].state == FINISHED
    assert sum(trial.state == PRUNED for trial in trials) >= 10


def test_a_job_that_still_runs_although_its_batch_is_over_ends_no_other() -> None:
    stuck = Trial(1, {"lr": "0.1"}, RUNNING, val_acc=(0.5,))
    assert not Judge(SEARCH, earlier=[finished(0.3, 0.6), stuck], index=2).prunes(1, 0.39)


def test_a_job_is_judged_alike_wherever_it_stands_beside_others() -> None:
    """Hyperband's brackets are drawn by the number of the job, not by how many were seen."""
    search = replace(SEARCH, pruner="hyperband")
    earlier = [finished(*(0.1 * epoch for epoch in range(1, 10)), index=index) for index in range(4)]
    told = {index: Judge(search, earlier=earlier, index=index).prunes(1, 0.01) for index in range(4, 24)}
    assert set(told.values()) == {True, False}  # by the bracket


def test_optunas_own_tools_can_read_what_is_left(tmp_path: Path) -> None:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    trials = [*searched(SEARCH, 3), Trial(3, {"strategy": "feature", "lr": "0.1"}, PRUNED, val_acc=(0.2, math.nan))]
    trials += [Trial(4, {"strategy": "feature", "lr": "0.01"}, FAILED), Trial(5, {}, RUNNING)]
    for _ in range(2):
        write_study(tmp_path / "study.journal", SEARCH, trials)
    assert [path.name for path in tmp_path.iterdir()] == ["study.journal"]
    study = optuna.load_study(
        study_name=None, storage=JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
    )
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3 + ["PRUNED", "FAIL"]
    assert study.best_value == max(trial.score or 0.0 for trial in trials)
    assert study.trials[3].intermediate_values[1] == 0.2
