"""Named sweeps as they are typed: a recipe says what varies, and whoever types a key beside it has the last word."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from tests.sweep.sweepers import sweep
from tl_experiments.config.compose import CONF
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.register import register
from tl_experiments.sweep.typed import as_choices

GRIDS = sorted(path.stem for path in (CONF / "grid").glob("*.yaml"))
STRATEGIES = sorted(path.stem for path in (CONF / "strategy").glob("*.yaml"))
Jobs = Callable[..., list[str]]


@pytest.fixture
def jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Jobs]:
    """Have the program's own sweeper plan a command line; returns the jobs that it prints, by name."""
    register()
    folder = tmp_path / "sweep"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()

        def plan(*typed: str, constant: str = "") -> list[str]:
            own = ["tracking=none", "sweep.dry_run=true", f"hydra.sweep.dir={folder}"]
            arguments = as_choices(["-m", *typed, *own])[1:]
            assert sweep(loader, arguments) == []
            assert not folder.exists()
            told = capsys.readouterr().out
            assert constant in told
            assert "the same configuration as another" not in told  # nothing is given twice
            return re.findall(r"^  job +\d+ (.+)$", told, re.MULTILINE)

        yield plan


@pytest.mark.parametrize("grid", GRIDS)
def test_every_recipe_is_a_plan_over_three_seeds(grid: str, jobs: Jobs) -> None:
    named = jobs(f"grid={grid}", "strategy=feature", constant=f"grid={grid}")
    assert {name.split("seed=")[1] for name in named} == {"0", "1", "2"}
    assert len(named) == len(set(named))


def test_a_recipe_is_composed_once_for_all_its_values(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    loader, composed = GlobalHydra.instance().config_loader(), []
    load = loader.load_sweep_config
    monkeypatch.setattr(loader, "load_sweep_config", lambda *given: (composed.append(given), load(*given))[1])
    assert len(jobs("grid=lr_grid")) == 18
    assert len(composed) == 1


def test_all_strategies_are_compared_and_no_other_place_lists_them(jobs: Jobs) -> None:
    assert jobs("grid=strategies", "seed=0") == STRATEGIES
    assert jobs("grid=label_efficiency", "seed=0", "dataset.train_size=0.5") == STRATEGIES


def test_labels_are_given_in_growing_parts(jobs: Jobs) -> None:
    sizes = ("0.01", "0.05", "0.1", "0.5", "1.0")
    typed = ("grid=label_efficiency", "seed=0", "strategy=feature")
    assert jobs(*typed) == [f"dataset.train_size={size}" for size in sizes]
    assert jobs(*typed, "dataset.train_size=0.5", "epochs=10,30") == ["epochs=10", "epochs=30"]  # its own value too


def test_what_is_typed_takes_the_place_of_the_recipes_values(jobs: Jobs) -> None:
    assert jobs("seed=7", "strategy=finetune,feature", "grid=strategies") == ["finetune", "feature"]
    assert jobs("grid=strategies", "++seed=5,6", "strategy=feature") == ["++seed=5", "++seed=6"]
    assert jobs("grid=lr_grid", "lr=1", "seed=0,1", "epochs=2,3") == [
        "seed=0 epochs=2", "seed=0 epochs=3", "seed=1 epochs=2", "seed=1 epochs=3",
    ]  # fmt: skip


def test_a_key_of_one_of_the_recipes_options_may_be_typed(jobs: Jobs) -> None:
    typed = ("grid=strategies", "strategy=feature,partial", "seed=0", "strategy.num_stages=2")
    assert jobs(*typed, constant="strategy.num_stages=2") == ["feature", "partial"]
    with pytest.raises(ConfigError, match=r"strategy\.num_stages: the chosen strategy has no such key"):
        jobs("grid=lr_grid", "lr=1", "seed=0", "strategy.num_stages=2")
