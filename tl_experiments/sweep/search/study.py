"""Optuna, asked and told. A study is built anew from the jobs that have ended and lives as long as one question.

So nothing but the files of the sweep is the state of a search, every answer depends on (seed, number of the job, jobs
before it) alone, and a search that was killed goes on with the same bits.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.seeding import derive_seed
from tl_experiments.sweep.ledger import FINISHED, PRUNED, RUNNING
from tl_experiments.sweep.planning import is_foreign
from tl_experiments.sweep.search.settings import Drawn, Parameter, Search
from tl_experiments.sweep.search.space import in_order
from tl_experiments.sweep.search.trials import Trial

try:
    import optuna
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.trial import FrozenTrial, TrialState, create_trial
except ImportError:
    raise ConfigError(
        "hydra/sweeper=optuna: Optuna is not installed; install it by: pip install -e '.[optuna]'"
    ) from None

optuna.logging.set_verbosity(logging.ERROR)  # a sweep tells of its jobs itself

NAME = "search"  # of every study: Hyperband's brackets are drawn by it
MOST_SEED = 2**32  # of NumPy's generators
MOST_ASKED = 10  # times that the sampler is asked for something new; after that chance is
REDUCTION = 3  # Hyperband: one of three goes on at each rung


def propose(search: Search, trials: Sequence[Trial], *, attempt: int) -> dict[str, str]:
    """Return what the next job is to try: key → value, of the keys that it accepts.

    Args:
        search: with its space.
        trials: all jobs before it; those that run are taken for bad ones, so that others are tried beside them.
        attempt: 0, and higher where the last answer was of no use.
    """
    seed = derive_seed(search.seed, "trial", len(trials), attempt) % MOST_SEED
    learns = search.sampler == "tpe" and attempt < MOST_ASKED
    sampler = (
        optuna.samplers.TPESampler(seed=seed, n_startup_trials=search.n_startup_trials)
        if learns
        else optuna.samplers.RandomSampler(seed=seed)
    )
    study = optuna.create_study(study_name=NAME, direction="maximize", sampler=sampler)
    if learns:
        study.add_trials([_frozen(trial, search) for trial in trials])
    asked = study.ask()
    values: dict[str, str] = {}
    for parameter in in_order(search.space):
        if not is_foreign(parameter.key, values, search.choices):
            values[parameter.key] = parameter.text(_suggest(asked, parameter))
    return {parameter.key: values[parameter.key] for parameter in search.space if parameter.key in values}


class Judge:
    """Whether a job goes on, after each of its epochs, seen what the jobs of earlier batches came to."""

    def __init__(self, search: Search, *, earlier: Sequence[Trial], index: int) -> None:
        """Show the pruner the earlier jobs.

        Args:
            search: whose pruner is not none.
            earlier: the first jobs of the plan.
            index: of the job; those between are seen as if they had not begun.
        """
        sampler = optuna.samplers.RandomSampler(seed=0)  # nothing is drawn
        self._study = optuna.create_study(
            study_name=NAME, direction="maximize", sampler=sampler, pruner=_pruner(search)
        )
        for trial in earlier:
            self._trial = self._study.ask()
            for epoch, val_acc in enumerate(trial.val_acc, start=1):
                self.prunes(epoch, val_acc)  # Hyperband notes which rungs a job has come to
            state = _state(trial)
            running = state == TrialState.RUNNING  # still, though its batch is over: it came to nothing
            self._study.tell(self._trial, trial.score, state=TrialState.FAIL if running else state)
        for _ in range(len(earlier), index):
            self._study.tell(self._study.ask(), state=TrialState.FAIL)
        self._trial = self._study.ask()

    def prunes(self, epoch: int, val_acc: float) -> bool:
        """Whether the job stops after this epoch.

        Args:
            epoch: from 1; each is told once, in order.
            val_acc: at its end.
        """
        self._trial.report(val_acc, epoch)
        return self._trial.should_prune()


def write_study(path: Path, search: Search, trials: Sequence[Trial]) -> None:
    """Write the jobs that have ended as a study for Optuna's own tools, such as optuna-dashboard; we never read it.

    Args:
        path: of the journal, which is replaced as a whole.
        search: with its space.
        trials: of all jobs.
    """
    from optuna.storages.journal import JournalFileBackend  # noqa: PLC0415 - it imports what no question needs

    ended = [trial for trial in trials if _state(trial) != TrialState.RUNNING]
    making = path.with_name(f".unfinished-{path.name}")
    making.unlink(missing_ok=True)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(making)))
    study = optuna.create_study(study_name=NAME, direction="maximize", storage=storage)
    study.add_trials([_frozen(trial, search) for trial in ended])
    making.replace(path)


def _pruner(search: Search) -> optuna.pruners.BasePruner:
    if search.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(
            min_resource=search.min_epochs,
            max_resource=max(search.max_epochs, search.min_epochs),
            reduction_factor=REDUCTION,
        )
    return optuna.pruners.MedianPruner(n_startup_trials=search.min_trials, n_warmup_steps=search.min_epochs)


def _state(trial: Trial) -> TrialState:
    if trial.state == FINISHED and trial.score is not None:
        return TrialState.COMPLETE
    return {PRUNED: TrialState.PRUNED, RUNNING: TrialState.RUNNING}.get(trial.state, TrialState.FAIL)


def _frozen(trial: Trial, search: Search) -> FrozenTrial:
    space = [parameter for parameter in search.space if parameter.key in trial.values]
    return create_trial(
        state=_state(trial),
        value=trial.score,
        params={parameter.key: parameter.drawn(trial.values[parameter.key]) for parameter in space},
        distributions={parameter.key: _distribution(parameter) for parameter in space},
        intermediate_values=dict(enumerate(trial.val_acc, start=1)),
        user_attrs={"job": trial.index},
    )


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.choices:
        return CategoricalDistribution(parameter.choices)
    if parameter.whole:
        low, high, step = int(parameter.low), int(parameter.high), int(parameter.step or 1)
        return IntDistribution(low, high, log=parameter.log, step=step)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def _suggest(asked: optuna.Trial, parameter: Parameter) -> Drawn:
    if parameter.choices:
        return asked.suggest_categorical(parameter.key, parameter.choices)
    if parameter.whole:
        low, high, step = int(parameter.low), int(parameter.high), int(parameter.step or 1)
        return asked.suggest_int(parameter.key, low, high, log=parameter.log, step=step)
    return asked.suggest_float(parameter.key, parameter.low, parameter.high, log=parameter.log, step=parameter.step)
