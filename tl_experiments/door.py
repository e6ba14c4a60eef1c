"""The program's door: what goes wrong leaves as one clear line and an exit code, never as a stack trace of Hydra's.

Exit codes: 0 all is well · 2 the input is wrong · 1 a run failed · 130 Ctrl-C · 143 SIGTERM.
"""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from tl_experiments.config.errors import ConfigError
from tl_experiments.config.explain import explain
from tl_experiments.runtime.errors import RunFailed, UserError
from tl_experiments.runtime.signals import Terminated, terminable

FULL_ERROR = "HYDRA_FULL_ERROR"
KNOWN = (ConfigError, UserError, HydraException, OmegaConfBaseException)

_users_full_error = os.environ.get(FULL_ERROR)


def _wants_traceback() -> bool:
    return _users_full_error not in (None, "", "0")


def _restore_full_error() -> None:
    if _users_full_error is None:
        os.environ.pop(FULL_ERROR, None)
    else:
        os.environ[FULL_ERROR] = _users_full_error


def _report(error: Exception, *, prefix: str = "") -> int:
    message = str(error) if isinstance(error, ConfigError | UserError) else explain(error)
    for line in message.splitlines():
        print(f"error: {prefix}{line}", file=sys.stderr)
    return 1 if isinstance(error, RunFailed) else 2


def task(main: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Wrap Hydra's task: known errors become one line, and a job of a sweep that has one does not end the others."""

    @functools.wraps(main)
    def wrapped(config: DictConfig) -> Any:
        _restore_full_error()
        try:
            with terminable():
                return main(config)
        except KNOWN as error:
            if _wants_traceback():
                raise
            job = HydraConfig.get()
            if job.mode != RunMode.MULTIRUN:
                sys.exit(_report(error))
            error.exit_code = _report(error, prefix=f"job {job.job.num}: ")  # type: ignore[attr-defined]
            raise
        except Exception as error:
            error.is_defect = True  # type: ignore[attr-defined]  # of the program or the machine: its traceback is wanted
            raise
        finally:
            os.environ[FULL_ERROR] = "1"  # Hydra hands every error to `enter` instead of printing its own text

    return wrapped


def enter(main: Callable[[], Any]) -> int:
    """Run a `@hydra.main` program and return its exit code."""
    # Only while this is set do composition errors reach the caller; `task` restores the user's value.
    os.environ[FULL_ERROR] = "1"
    try:
        main()
    except (*KNOWN, OSError, ValueError) as error:  # while it composes, Hydra raises the last two as well
        if _wants_traceback() or getattr(error, "is_defect", False):
            raise
        reported = getattr(error, "exit_code", None)
        return reported if reported is not None else _report(error)
    except KeyboardInterrupt:
        print("error: interrupted by Ctrl-C", file=sys.stderr)
        return 130
    except Terminated as error:
        print(f"error: {error}", file=sys.stderr)
        return 143
    finally:
        _restore_full_error()
    return 0
