"""Run one experiment, or with -m a sweep: `python run.py --help`."""

import sys

import hydra
from omegaconf import DictConfig

from tl_experiments.config.member import current_member
from tl_experiments.config.register import register
from tl_experiments.door import enter, task

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
@task
def main(config: DictConfig) -> float:
    member = current_member(config)
    from tl_experiments.experiment import run_experiments  # noqa: PLC0415 - a config error must not wait for torch

    return run_experiments([member])[0].val_acc_best


if __name__ == "__main__":
    sys.exit(enter(main))
