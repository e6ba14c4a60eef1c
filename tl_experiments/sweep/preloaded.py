"""What every job needs, imported once in the process that jobs are forked from, and nowhere else."""

import gc

import tl_experiments.data.digits
import tl_experiments.experiment
import tl_experiments.models.efficientnet_lite0
import tl_experiments.sweep.process
import tl_experiments.tracking.mlflow_tracker  # noqa: F401

gc.collect()
gc.freeze()  # a job's collector leaves these objects alone, so that their memory stays shared
