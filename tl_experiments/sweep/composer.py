"""The configurations of many jobs: Hydra composes each choice of options once; values are put into copies of that.

Composing takes Hydra a tenth of a second, and the jobs of a sweep differ in values more often than in options.
"""

import copy

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


class Composer:
    """Task overrides of a job → its configuration, with its node `hydra`: what `load_sweep_config` returns."""

    def __init__(self, loader: ConfigLoader, sweep: DictConfig) -> None:
        """Compose as `loader` does for a sweep's own configuration."""
        self._loader, self._sweep = loader, sweep
        self._chosen: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: list[str]) -> DictConfig:
        """Compose one job's configuration; raises what Hydra raises."""
        parsed = OverridesParser.create().parse_overrides(overrides)
        if not all(map(_is_plain, parsed)):
            return self._loader.load_sweep_config(self._sweep, overrides)  # their order matters
        try:
            options = tuple(str(item.input_line) for item in parsed if self._chooses(item))
            if options not in self._chosen:
                self._chosen[options] = self._loader.load_sweep_config(self._sweep, list(options))
            config = copy.deepcopy(self._chosen[options])
            for item in parsed:
                if not self._chooses(item):
                    OmegaConf.update(config, item.key_or_group, item.value(), merge=True)
        except OmegaConfBaseException:
            return self._loader.load_sweep_config(self._sweep, overrides)  # it says what is wrong
        config.hydra.overrides.task = overrides
        words = config.hydra.job.config.override_dirname
        config.hydra.job.override_dirname = get_overrides_dirname(
            parsed, exclude_keys=words.exclude_keys, item_sep=words.item_sep, kv_sep=words.kv_sep
        )
        return config

    def _chooses(self, override: Override) -> bool:
        """Whether an override may say more than one value: an option of a group."""
        key = override.key_or_group
        if "/" in key or override.package is not None:
            return True
        if "." in key:
            return False
        if key not in self._sweep.keys():  # noqa: SIM118 - `in` the node itself would resolve an interpolation
            return True  # a recipe
        return not OmegaConf.is_interpolation(self._sweep, key) and OmegaConf.is_dict(self._sweep[key])


def _is_plain(override: Override) -> bool:
    """Whether an override chooses an option or sets a value of the run, and merges nothing."""
    changes_more = override.is_add() or override.is_force_add() or override.is_delete() or override.is_hydra_override()
    return not (changes_more or isinstance(override.value(), dict))
