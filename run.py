"""Run one experiment, or with -m a sweep: `python run.py --help`."""

import sys

import hydra
from omegaconf import DictConfig

from tl_experiments.config.register import register
from tl_experiments.door import enter, task
from tl_experiments.sweep.job import current_job

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
@task
def main(config: DictConfig) -> float:
    return current_job(config).run()


if __name__ == "__main__":
    sys.exit(enter(main))
