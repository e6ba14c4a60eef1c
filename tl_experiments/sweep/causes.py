"""Why a job ended, in one line for people, whoever tells it."""

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from tl_experiments.config.errors import ConfigError
from tl_experiments.runtime.errors import RunFailed, UserError
from tl_experiments.runtime.signals import Terminated

MENDABLE = (ConfigError, UserError, HydraException, OmegaConfBaseException)  # by the user: told without a traceback
NOT_STARTED = "not started: another job failed, and sweep.on_error=stop"


class NotStarted(RunFailed):
    """A job that was not begun, because another had failed and `sweep.on_error` is stop."""


class JobKilled(RunFailed):
    """A job's process was ended by a signal, so that nothing is said against the job."""


def cause_of(error: object) -> str:
    """Return one line: an error that a user can mend by its message, another with its type."""
    if isinstance(error, SystemExit):
        return f"called sys.exit({error.code!r})"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted by Ctrl-C"
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError | ConfigError | Terminated) else f"{type(error).__name__}: {text}"
