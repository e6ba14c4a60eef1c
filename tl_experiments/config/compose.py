"""A run's configuration composed from a list of overrides, for programs that are not started by Hydra."""

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from tl_experiments.config.command_line import require_values
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member, checked, chosen_options, make_uid, require_no_sweep, run_name
from tl_experiments.config.register import register

CONF = Path(__file__).parents[2] / "conf"


def compose_member(overrides: Sequence[str], *, folder: Path) -> Member:
    """Compose and check one run's configuration; nothing is written.

    Args:
        overrides: as of run.py.
        folder: where the run would write.

    Raises:
        ConfigError: a value is wrong, would run code, or is a sweep's, or the configuration files are not beside the
            package.
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException, ValueError, OverflowError: they cannot be
            composed.
    """
    if not CONF.is_dir():
        raise ConfigError(f"{CONF}: no such folder; expected the configuration files of a source checkout")
    require_values(overrides)
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", list(overrides), return_hydra_config=True)
    return composed_member(config, overrides, folder=folder)


def composed_member(config: DictConfig, overrides: Sequence[str], *, folder: Path) -> Member:
    """Check what Hydra composed of a list of overrides, its node `hydra` included, which is taken out of it.

    Raises:
        ConfigError, omegaconf.errors.OmegaConfBaseException, ValueError, OverflowError: as `compose_member`.
    """
    choices = chosen_options(config.hydra)
    OmegaConf.set_struct(config, False)
    config.pop("hydra")
    values, sweep = checked(config, folder=folder)
    require_no_sweep(sweep, choices=choices)
    return Member(config=values, choices=choices, folder=folder, name=run_name(overrides), uid=make_uid())
