"""Where Hydra looks for plugins; it takes classes that are defined here only, so that these are empty."""

from tl_experiments.sweep import launcher, sweeper


class PlannedSweeper(sweeper.PlannedSweeper):
    """`hydra/sweeper=planned`."""


class IsolatedLauncher(launcher.IsolatedLauncher):
    """`hydra/launcher=isolated`."""
