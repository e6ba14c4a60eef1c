"""Every option of every group composes with the defaults and passes the checks."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tl_experiments.config.register import register

CONF = Path(__file__).parent.parent / "conf"
OPTIONS = sorted(
    f"{file.parent.name}={file.stem}" for file in CONF.glob("*/*.yaml") if file.parent.name != "experiment"
)
NEEDED = {
    "dataset=image_folder": ["dataset.root=/tmp"],
    "backbone=timm": ["backbone.name=resnet10t"],
}


@pytest.mark.parametrize("option", [*OPTIONS, "+experiment=cifar10_resnet18", "+experiment=image_folder_finetune"])
def test_option_composes(option: str):
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [option.lstrip("+"), *NEEDED.get(option, [])]
        if "image_folder_finetune" in option:
            overrides.append("dataset.root=/tmp")
        config = compose("config", overrides)
    group = option.split("=")[0].lstrip("+")
    assert group == "experiment" or OmegaConf.is_dict(config[group])
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
