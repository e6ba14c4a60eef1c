"""The program's door: what goes wrong leaves as one clear line and an exit code, never as a stack trace of Hydra's.

Exit codes: 0 all is well · 2 the input is wrong · 1 a run failed · 130 Ctrl-C · 143 SIGTERM.
"""

import functools
import gc
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from tl_experiments.config.command_line import require_values
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.explain import explain
from tl_experiments.config.member import check_before_folder
from tl_experiments.runtime.errors import RunFailed, UserError
from tl_experiments.runtime.full_error import borrow, give_back, given_back, wants_traceback
from tl_experiments.runtime.signals import Terminated, tell_stopped, terminable
from tl_experiments.runtime.torchrun import Launch, current_launch
from tl_experiments.sweep.causes import MENDABLE, cause_of
from tl_experiments.sweep.resumed import is_resume, resumed_job
from tl_experiments.sweep.typed import as_choices
from tl_experiments.sweep.under_torchrun import arguments_now, follow_first, leading, quieten
from tl_experiments.tracking.address import absolute_uri


def _report(error: Exception, *, prefix: str = "") -> int:
    message = str(error) if isinstance(error, ConfigError | UserError) else explain(error)
    if (launch := current_launch()) is not None:
        launch.error = message
    for line in message.splitlines():
        print(f"error: {prefix}{line}", file=sys.stderr)
    return 1 if isinstance(error, RunFailed) else 2


class Threshold(Callback):
    """Has Hydra refuse what the task would refuse, before it makes the folder of a run (`hydra.callbacks`)."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        try:
            if "uri" in config.tracking:
                absolute_uri(config.tracking.uri)  # refuses one with a password, which Hydra would write down
            if not wants_traceback():  # else the task shows it; of an error in here Hydra would make a warning
                check_before_folder(config)
        except MENDABLE as error:
            sys.exit(_report(error))


def task(main: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Wrap Hydra's task: known errors become one line, and a job of a sweep that has one does not end the others."""

    @functools.wraps(main)
    def wrapped(config: DictConfig) -> Any:
        with given_back(), terminable():
            try:
                return main(config)
            except MENDABLE as error:
                if wants_traceback():
                    raise
                if HydraConfig.get().mode != RunMode.MULTIRUN:
                    sys.exit(_report(error))
                group = _group(config)
                number = HydraConfig.get().job.num if group is None else group
                error.exit_code = _report(error, prefix=f"job {number}: ")  # type: ignore[attr-defined]
                raise
            except Exception as error:
                error.is_defect = True  # type: ignore[attr-defined]  # of the program or the machine
                if HydraConfig.get().mode == RunMode.MULTIRUN:
                    traceback.print_exc()  # here, since a sweep goes on and tells only the last line
                if _group(config) is not None:  # of a plan; launchers could not pickle every error
                    raise RunFailed(cause_of(error)) from None
                raise

    return wrapped


def _of_rank(launch: Launch | None) -> str:
    return "" if launch is None or launch.is_first else f"rank {launch.rank}: "


def _group(config: DictConfig) -> int | None:
    """The number of this process in the plan of a sweep; None where there is no plan."""
    return OmegaConf.select(config, "sweep.group")


def _go_on(arguments: Sequence[str]) -> None:
    """Go on with a run. Its configuration is its own, so that Hydra has nothing to compose."""
    with given_back(), terminable():
        job = resumed_job(arguments)
        if isinstance(job, str):
            print(job)
            return
        try:
            job.run()
        except MENDABLE:
            raise
        except Exception as error:
            error.is_defect = True  # type: ignore[attr-defined]
            raise


def _enter(main: Callable[[], Any]) -> None:
    if is_resume(sys.argv[1:]):
        _go_on(sys.argv[1:])
    else:
        require_values(sys.argv[1:])
        sys.argv[1:] = as_choices(sys.argv[1:])
        main()


def enter(main: Callable[[], Any]) -> int:
    """Run a `@hydra.main` program and return its exit code."""
    launch = current_launch()
    # Only while this is set do composition errors reach the caller; `task` restores the user's value.
    borrow()
    try:
        if launch is None:
            _enter(main)
            return 0
        quieten()
        if not launch.is_first:
            return follow_first(launch)
        with leading(launch):
            sys.argv[1:] = arguments_now(launch, sys.argv[1:])
            _enter(main)
    except (*MENDABLE, OSError, ValueError, OverflowError) as error:  # while it composes, Hydra raises the last three
        if wants_traceback() or getattr(error, "is_defect", False):
            raise
        reported = getattr(error, "exit_code", None)
        return reported if reported is not None else _report(error, prefix=_of_rank(launch))
    except (KeyboardInterrupt, Terminated) as error:
        return tell_stopped(error)
    finally:
        give_back()
        gc.freeze()  # the process is about to end: searching all libraries for garbage would take it a second more
    return 0
