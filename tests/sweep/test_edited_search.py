"""A search whose configuration files are edited while it runs asks for no more jobs."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn

from tests.sweep.sweepers import sweep
from tl_experiments.config.compose import CONF
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.register import register
from tl_experiments.sweep import conduct
from tl_experiments.sweep.plan import Plan

pytest.importorskip("optuna")


def test_each_batch_is_composed_from_the_files_as_they_are_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: dict[str, Any] = {}

    def conducted(plan: Plan, _folder: Path, **given: Any) -> list[JobReturn]:
        begun.update(given, plan=plan)
        return []

    monkeypatch.setattr(conduct, "conduct", conducted)
    conf = shutil.copytree(CONF, tmp_path / "conf")
    search = ["hydra/sweeper=optuna", "hydra.sweeper.num_trials=9", "lr=interval(0.1,1)", "sweep.n_jobs=1"]
    own = ["tracking=none", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    register()
    with initialize_config_dir(str(conf), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        sweep(loader, [*search, *own])
        longer = begun["extend"](begun["plan"])
        assert (len(begun["plan"].jobs), len(longer.jobs)) == (1, 2)
        run = conf / "config.yaml"
        run.write_text(run.read_text().replace("\nbatch_size: 32", "\nbatch_size: 31"))
        with pytest.raises(ConfigError, match=r"not as when the search began \(batch_size"):
            begun["extend"](longer)
