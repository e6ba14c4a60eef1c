"""What a sweep's jobs are composed of is what Hydra composes, whatever was composed before."""

import copy
from collections.abc import Iterator

import pytest
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from tl_experiments.config.compose import CONF
from tl_experiments.config.register import register
from tl_experiments.sweep.composer import Composer

TYPED = (
    (),
    ("lr=1e-3",),
    ("lr=1e-4", "seed=7"),
    ("strategy=finetune",),
    ("lr=1e-4", "strategy=finetune", "strategy.backbone_lr_scale=0.5", "batch_size=8"),
    ("strategy=finetune", "strategy.backbone_lr_scale=0.25", "lr=1e-4"),
    ("optimizer=sgd", "optimizer.momentum=0.5", "dataset.train_size=${batch_size}"),
    ("experiment=image_folder_finetune", "dataset.root=/data", "epochs=3"),
    ("augmentation=standard", "lr=auto", "head.dropout=0.1"),
    ("tracking=none", "dataset={val_fraction: 0.3}", "dataset.train_size=null"),
    ("lr=1", "lr=2"),
    ("early_stopping.patience=3", "early_stopping={patience: 5}"),
    ("dataset.train_size=3", "dataset={train_size: 5}", "dataset.val_fraction=0.3"),
    ("+strategy.extra=1", "strategy.extra=2", "seed=1"),
    ("class_weights='a: {b}, c'",),
)
WRONG = (
    ("epochs=fast",),
    ("strategy.nothing=1",),
    ("strategy=nothing",),
    ("seed=1.5", "lr=1"),
    ("lr=1", "~scheduler.warmup_epochs"),
    ("nothing=1",),
    ("lr=[",),
)


@pytest.fixture(scope="module")
def loaded() -> Iterator[tuple[ConfigLoader, DictConfig]]:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        yield loader, loader.load_configuration("config", ["hydra.sweep.dir=here"], RunMode.MULTIRUN)


def said(config: DictConfig) -> tuple[str, bool | None, str]:
    hydra = config.hydra
    return OmegaConf.to_yaml(config), OmegaConf.is_struct(config), f"{hydra.job.override_dirname} {hydra.sweep.dir}"


def test_it_is_what_hydra_composes(loaded: tuple[ConfigLoader, DictConfig]) -> None:
    loader, sweep = loaded
    compose = Composer(loader, sweep)
    expected = {typed: said(loader.load_sweep_config(sweep, list(typed))) for typed in TYPED}
    for typed in (*TYPED, *reversed(TYPED)):
        assert said(compose(list(typed))) == expected[typed], typed


@pytest.mark.parametrize("typed", WRONG, ids=" ".join)
def test_what_is_wrong_is_told_as_hydra_tells_it(
    typed: tuple[str, ...], loaded: tuple[ConfigLoader, DictConfig]
) -> None:
    loader, sweep = loaded
    with pytest.raises(HydraException) as expected:
        loader.load_sweep_config(sweep, list(typed))
    with pytest.raises(HydraException) as found:
        Composer(loader, sweep)(list(typed))
    assert str(found.value) == str(expected.value)


def test_a_value_that_only_the_jobs_have_is_not_asked_for(loaded: tuple[ConfigLoader, DictConfig]) -> None:
    loader, sweep = loaded
    lacking = copy.deepcopy(sweep)
    lacking.lr = "${oc.env:TL_NO_SUCH_RATE}"
    assert Composer(loader, lacking)(["lr=1e-3"]).lr == 1e-3


def test_options_are_composed_once(loaded: tuple[ConfigLoader, DictConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    loader, sweep = loaded
    composed: list[list[str]] = []
    load = loader.load_sweep_config
    monkeypatch.setattr(loader, "load_sweep_config", lambda *given: (composed.append(given[1]), load(*given))[1])
    compose = Composer(loader, sweep)
    for strategy in ("feature", "finetune"):
        for seed in range(3):
            assert compose([f"strategy={strategy}", f"seed={seed}"]).seed == seed
    assert composed == [["strategy=feature"], ["strategy=finetune"]]
