"""The one way to Ray: the cluster at RAY_ADDRESS, else this machine; what is wrong with it is told in seconds."""

import logging
import os
import signal
import socket
from collections.abc import Mapping
from typing import Any

from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.signals import shielded

ADDRESS = "RAY_ADDRESS"
REACH_SECONDS = 5.0  # Ray itself tries for minutes
LOCAL_STORE_BYTES = 80_000_000  # what tasks give back is a few numbers


def connect_ray(*, runtime_env: Mapping[str, Any]) -> Any:
    """Connect to the cluster of RAY_ADDRESS, or begin one on this machine; signals stay whose they were.

    Args:
        runtime_env: of Ray, for the processes of its tasks.

    Returns:
        The library.

    Raises:
        SettingError: Ray is not installed, does not answer, or does not want this process.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anyone
    try:
        import ray  # noqa: PLC0415 - optional, and slow
    except ImportError as error:
        raise SettingError(f"Ray cannot be used ({error}); install it by: pip install -e '.[ray]'") from error
    address = address_of_ray()
    if address:
        _reach(address)
    local = {} if address else {"include_dashboard": False, "object_store_memory": LOCAL_STORE_BYTES}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with shielded():  # Ray would be left half begun
            ray.init(
                address=address or "local",
                runtime_env=dict(runtime_env) or None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **local,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        told = " ".join(str(error).split())
        if not address:
            raise SettingError(f"Ray on this machine: {told}") from error
        raise SettingError(
            f"{ADDRESS}={address}: {told}; expected a cluster of this version of Ray, and its RAY_AUTH_MODE and token"
        ) from error
    finally:
        for number, handler in handlers.items():  # Ray takes SIGTERM for itself
            signal.signal(number, handler)
    return ray


def address_of_ray() -> str:
    """Return the address that the environment names; empty for Ray on this machine."""
    return os.environ.get(ADDRESS, "").strip()


def _reach(address: str) -> None:
    """See that a cluster answers; raises SettingError."""
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        raise SettingError(f"{ADDRESS}={address}: expected HOST:PORT of the cluster's head, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except OSError as error:
        raise SettingError(
            f"{ADDRESS}={address}: no Ray cluster answers ({error}); start its head by `ray start --head`, "
            f"or unset {ADDRESS} for Ray on this machine alone"
        ) from error
