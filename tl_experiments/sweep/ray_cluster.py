"""A Ray cluster as launchers see it: connected to, asked for its nodes, given tasks."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from tl_experiments.runtime.ray_connection import address_of_ray, connect_ray

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
            SettingError: Ray is not installed, does not answer, or does not want this process.
        """
        address = address_of_ray()
        return cls(
            connect_ray(runtime_env=runtime_env),
            f"the Ray cluster at {address}" if address else "Ray on this machine",
        )

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
