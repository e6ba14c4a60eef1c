"""Where Hydra looks for plugins; it takes classes that are defined here only, so that these are empty."""

from tl_experiments.sweep import launcher, ray_launcher, submitit_launcher, sweeper
from tl_experiments.sweep.search import sweeper as search_sweeper


class PlannedSweeper(sweeper.PlannedSweeper):
    """`hydra/sweeper=planned`."""


class OptunaSweeper(search_sweeper.OptunaSweeper):
    """`hydra/sweeper=optuna`."""


class IsolatedLauncher(launcher.IsolatedLauncher):
    """`hydra/launcher=isolated`."""


class RayLauncher(ray_launcher.RayLauncher):
    """`hydra/launcher=ray`."""


class SlurmLauncher(submitit_launcher.SlurmLauncher):
    """`hydra/launcher=submitit_slurm`."""


class LocalLauncher(submitit_launcher.LocalLauncher):
    """`hydra/launcher=submitit_local`."""
