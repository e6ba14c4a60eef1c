"""Which share of the work this process was asked to do: typed, or told by SLURM to each task of an array."""

import re
from collections.abc import Mapping

from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.share import WHOLE, Share

ARRAY = "SLURM_ARRAY_TASK"


def asked_share(part: str | None, environment: Mapping[str, str]) -> Share:
    """Return the share that was asked for.

    Args:
        part: `I/N`, I from 1 to N; None: that of a task of a SLURM array, and everything elsewhere.
        environment: variables of the process.

    Raises:
        SettingError: it is no share.
    """
    if part is not None:
        return _typed(part)
    if f"{ARRAY}_COUNT" in environment:
        return _of_array(environment)
    return WHOLE


def _typed(part: str) -> Share:
    if found := re.fullmatch(r"(\d{1,9})/(\d{1,9})", part):
        number, count = int(found[1]), int(found[2])
        if 1 <= number <= count:
            return Share(number - 1, count)
    raise SettingError(f"--part {part}: expected I/N, I from 1 to N, such as 1/16")


def _of_array(environment: Mapping[str, str]) -> Share:
    """SLURM numbers the tasks as it was told to, with steps or from any number on."""
    names = [f"{ARRAY}_{name}" for name in ("ID", "MIN", "MAX", "COUNT")]
    try:
        number, first, last, count = (int(environment[name]) for name in names)
        step = int(environment.get(f"{ARRAY}_STEP", 1))
        if last - first == (count - 1) * step and (number - first) % step == 0:
            return Share((number - first) // step, count)
    except (KeyError, ValueError, ZeroDivisionError):
        pass
    told = ", ".join(f"{name}={environment.get(name, '')}" for name in names)
    raise SettingError(f"{told}: expected an array without gaps, such as --array=1-16; or --part I/N")
