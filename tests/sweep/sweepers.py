"""The program's own sweeper, as Hydra makes it of what is typed."""

from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, RunMode


def sweep(loader: ConfigLoader, typed: Sequence[str]) -> Sequence[JobReturn]:
    """Sweep in this process.

    Args:
        loader: of the configuration files.
        typed: overrides.
    """
    config = loader.load_configuration("config", list(typed), RunMode.MULTIRUN)
    context = HydraContext(config_loader=loader, callbacks=None)  # type: ignore[arg-type]
    sweeper = Plugins.instance().instantiate_sweeper(hydra_context=context, task_function=lambda _: None, config=config)
    return sweeper.sweep(list(config.hydra.overrides.task))
