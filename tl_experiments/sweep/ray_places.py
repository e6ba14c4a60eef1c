"""Where the features of a sweep are: the first job of each kind computes them, and the others follow it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tl_experiments.sweep.grouping import feature_key
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.ray_node import PLACE

TRAINS = "metrics.jsonl"  # has a line as soon as an epoch is over, for which features were there


@dataclass
class FeaturePlaces:
    """Decides which jobs wait for the features of another, and which node has them.

    Attributes:
        folders: of the jobs that host a process, by their index.
        keys: what their features are known by; None where the backbone is trained.
        first: key → index of the job that computes the features, or has done so.
        over: indices of the jobs that have ended.
    """

    folders: Mapping[int, Path]
    keys: Mapping[int, str | None]
    first: dict[str, int] = field(default_factory=dict)
    over: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, plan: Plan, folder: Path, *, alive: frozenset[str]) -> Self:
        """Read a plan, and what earlier jobs of the sweep have left on nodes that are still there."""
        hosts = [plan.jobs[group[0]] for group in plan.groups]
        keys = {host.index: feature_key(plan.member(host, folder=folder)) for host in hosts}
        places = cls({host.index: folder / host.folder for host in hosts}, keys)
        for index, key in keys.items():
            if key is not None and places.has_features(index) and places.place(index) in alive:
                places.first.setdefault(key, index)
        return places

    def accepts(self, index: int, *, alive: frozenset[str]) -> bool:
        """Whether a job can start without computing what another one is just computing; the first of its kind can."""
        key = self.keys[index]
        if key is None:
            return True
        first = self.first.get(key)
        if first is None or (first in self.over and not self.has_features(first)) or self._is_lost(first, alive):
            self.first[key] = index
            return True
        return self.has_features(first)

    def node(self, index: int) -> str | None:
        """Return the id of the node where the features of a job are; None where any will do."""
        key = self.keys[index]
        first = None if key is None else self.first.get(key)
        return None if first is None or first == index else self.place(first)

    def ended(self, index: int) -> None:
        self.over.add(index)

    def has_features(self, index: int) -> bool:
        """Whether a job has come so far that its features are kept."""
        path = self.folders[index] / TRAINS
        return path.exists() and path.stat().st_size > 0

    def place(self, index: int) -> str | None:
        """Return the id of the node on which a job ran last."""
        path = self.folders[index] / PLACE
        return path.read_text(encoding="utf-8") if path.exists() else None

    def _is_lost(self, first: int, alive: frozenset[str]) -> bool:
        """Whether the node is gone that had the features; a job that still runs is begun again elsewhere by Ray."""
        return first in self.over and self.place(first) not in alive
