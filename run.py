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
    job = current_job(config)
    from tl_experiments.experiment import run_experiments  # noqa: PLC0415 - a config error must not wait for torch

    with job.recorded():
        results = run_experiments(job.members)
    job.show(results)
    return results[0].val_acc_best


if __name__ == "__main__":
    sys.exit(enter(main))
