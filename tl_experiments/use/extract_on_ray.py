"""Features extracted by the nodes of a Ray cluster, or by this machine as one.

All nodes must reach the images, the cache and this program under the paths of the process that asks, as on a shared
disk. A part whose node died is tried again, which costs what was not published of it.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tl_experiments.config.compose import compose_member
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.member import Member
from tl_experiments.runtime.cache_folder import FOLDER, LIMIT, cache_folder
from tl_experiments.runtime.errors import RunFailed, SettingError, UserError
from tl_experiments.runtime.process import num_cores
from tl_experiments.runtime.ray_connection import connect_ray
from tl_experiments.runtime.share import Share
from tl_experiments.tracking.console import Console
from tl_experiments.use.extract import Extracted, extract

RETRIES = 3  # of a part whose process or node dies


def extract_on_ray(overrides: Sequence[str], member: Member, *, num_parts: int, console: Console) -> list[Extracted]:
    """Extract all features that a run would read from the cache, in parts side by side; no run is made.

    Ray runs as many parts at once as it has processors for: a GPU for each where there are some and the run may use
    one, else as many cores as the run's threads, on which the bits depend.

    Args:
        overrides: as of run.py.
        member: the run that they describe.
        num_parts: how many.
        console: told of parts that are done.

    Raises:
        UserError: Ray is not installed, not there or too small; or as `extract` does.
    """
    ray = connect_ray(runtime_env=_runtime_env())
    try:
        threads = member.config["runtime"]["threads"] or int(os.environ.get("OMP_NUM_THREADS", num_cores()))
        resources = _resources(ray, device=member.config["runtime"]["device"], threads=threads)
        task = ray.remote(max_retries=RETRIES, **resources)(_extract_part)
        typed = [*overrides, f"runtime.threads={threads}"]
        parts = [task.remote(typed, Path.cwd(), Share(index, num_parts)) for index in range(num_parts)]
        return _gathered(ray, parts, console=console)
    finally:
        ray.shutdown()


def _runtime_env() -> dict[str, Any]:
    """Return what workers must see as this process does: its code, and its cache."""
    code = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {FOLDER: str(cache_folder()), "PYTHONPATH": os.pathsep.join(code)}
    return {"env_vars": variables | {name: os.environ[name] for name in (LIMIT,) if name in os.environ}}


def _resources(ray: Any, *, device: str, threads: int) -> dict[str, int]:
    """Return what one part takes of a node.

    Raises:
        SettingError: no node has it.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if device != "cpu" and any(node.get("GPU", 0) >= 1 for node in nodes):
        return {"num_gpus": 1, "num_cpus": 1}
    most = max(int(node.get("CPU", 0)) for node in nodes)
    if threads > most:
        raise SettingError(f"runtime.threads={threads}: no node of Ray has so many cores; expected at most {most}")
    return {"num_cpus": threads}


def _extract_part(overrides: Sequence[str], folder: Path, share: Share) -> Extracted:
    """What a worker does."""
    os.chdir(folder)
    return extract(compose_member(overrides, folder=folder), share=share)


def _gathered(ray: Any, parts: Sequence[Any], *, console: Console) -> list[Extracted]:
    """Wait for all parts; the first that fails ends it.

    Raises:
        UserError: of a part.
    """
    advance = console.work(f"extracting features in {len(parts)} parts on Ray")
    waiting = list(parts)
    try:
        while waiting:
            done, waiting = ray.wait(waiting, timeout=1.0)
            ray.get(done)
            advance(len(parts) - len(waiting), len(parts))
        return ray.get(list(parts))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError | ConfigError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        reason = str(error).splitlines()[0]
        raise RunFailed(f"a part was lost {RETRIES + 1} times ({reason}); what is extracted stays") from None
