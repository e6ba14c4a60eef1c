"""A Ray cluster as launchers see it: connected to, asked for its nodes, given tasks."""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from tl_experiments.config.errors import ConfigError

ADDRESS = "RAY_ADDRESS"
REACH_SECONDS = 5.0  # Ray itself tries for minutes
LOCAL_STORE_BYTES = 80_000_000  # what jobs give back is a few numbers
NODES_SECONDS = 2.0  # between two looks at the nodes
KEYS = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory_gb"}


class RayCluster:
    """A connection, which ends with this process."""

    def __init__(self, ray: Any, where: str) -> None:
        """Keep Ray's module, and how the cluster is called."""
        self._ray, self._where = ray, where
        self._nodes: list[dict[str, Any]] = []
        self._looked = float("-inf")
        self._lacks_since: float | None = None

    @classmethod
    def connect(cls, *, runtime_env: Mapping[str, Any]) -> Self:
        """Connect to the cluster of RAY_ADDRESS, or begin one on this machine.

        Args:
            runtime_env: of Ray, for the processes of the jobs.

        Raises:
            ConfigError: the cluster does not answer, or does not want this process.
            ImportError: Ray is not installed.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anyone
        import ray  # noqa: PLC0415 - Ray is optional

        address = os.environ.get(ADDRESS, "").strip()
        if address:
            _reach(address)
        local = {} if address else {"include_dashboard": False, "object_store_memory": LOCAL_STORE_BYTES}
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            ray.init(
                address=address or "local",
                runtime_env=dict(runtime_env) or None,
                log_to_driver=False,  # the log of a job is followed instead
                logging_level=logging.ERROR,
                **local,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            told = " ".join(str(error).split())
            hint = "; expected a cluster of this version of Ray, and its RAY_AUTH_MODE and token" if address else ""
            raise ConfigError(f"hydra/launcher=ray: {told}{hint}") from error
        finally:
            for number, handler in handlers.items():  # Ray takes SIGTERM for itself
                signal.signal(number, handler)
        return cls(ray, f"the Ray cluster at {address}" if address else "Ray on this machine")

    def put(self, content: bytes) -> Any:
        """Keep what every task is given."""
        return self._ray.put(content)

    def task(self, function: Callable[..., Any], **options: Any) -> Any:
        """Return a function as Ray runs it."""
        return self._ray.remote(**options)(_given_node(function))

    def start(self, task: Any, packed: Any, given: Mapping[str, Any], *, name: str, node: str | None) -> Any:
        """Start a task, on a node if it has room now, else on any."""
        options: dict[str, Any] = {"name": name}
        if node is not None:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415 - Ray is optional

            strategy = NodeAffinitySchedulingStrategy(node, soft=True, _spill_on_unavailable=True)
            options["scheduling_strategy"] = strategy
        return task.options(**options).remote(packed, **given)

    def is_ready(self, reference: Any) -> bool:
        return bool(self._ray.wait([reference], timeout=0)[0])

    def get(self, reference: Any) -> Any:
        return self._ray.get(reference)

    def cancel(self, reference: Any) -> None:
        self._ray.cancel(reference, recursive=False)

    def alive(self) -> frozenset[str]:
        """Return the ids of the nodes that live."""
        return frozenset(node["NodeID"] for node in self._look())

    @property
    def has_gpus(self) -> bool:
        return any(node.get("Resources", {}).get("GPU", 0) >= 1 for node in self._look())

    def lacks(self, needs: Mapping[str, float], *, patience_seconds: float = 0.0) -> str | None:
        """Say what no node has, however idle it is; None where one is large enough.

        Args:
            needs: of one task, by Ray's names; memory in bytes.
            patience_seconds: for which it must have been so.
        """
        nodes = [node.get("Resources", {}) for node in self._look()]
        if any(all(node.get(key, 0) >= needed for key, needed in needs.items()) for node in nodes):
            self._lacks_since = None
            return None
        self._lacks_since = self._lacks_since or time.monotonic()
        if time.monotonic() - self._lacks_since < patience_seconds:
            return None
        asked = " ".join(f"hydra.launcher.{KEYS[key]}={_shown(key, needed)}" for key, needed in needs.items() if needed)
        most = {key: max((node.get(key, 0) for node in nodes), default=0) for key, needed in needs.items() if needed}
        largest = ", ".join(
            f"{_shown(key, has)} {'GB memory' if key == 'memory' else key}" for key, has in most.items()
        )
        return f"{asked}: no node of {self._where} has so much; of its {len(nodes)} nodes the largest have {largest}"

    def _look(self) -> list[dict[str, Any]]:
        if time.monotonic() - self._looked > NODES_SECONDS:
            self._nodes = [node for node in self._ray.nodes() if node["Alive"]]
            self._looked = time.monotonic()
        return self._nodes


def _given_node(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with the id of the node that it runs on as `node_id`."""

    def run(packed: bytes, **given: Any) -> Any:
        import ray  # noqa: PLC0415 - Ray is optional

        return function(packed, node_id=ray.get_runtime_context().get_node_id(), **given)

    return run


def _shown(key: str, amount: float) -> str:
    return f"{amount / 1e9:.3g}" if key == "memory" else f"{amount:g}"


def _reach(address: str) -> None:
    """See that a cluster answers; raises ConfigError."""
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        raise ConfigError(f"{ADDRESS}={address}: expected HOST:PORT of the cluster's head, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"{ADDRESS}={address}: no Ray cluster answers ({error}); start its head by `ray start --head`, "
            f"or unset {ADDRESS} for Ray on this machine alone"
        ) from error
