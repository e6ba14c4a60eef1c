"""What a run tells the outside world: the tracker protocol, and the null twin for runs that nobody tracks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

ParamValue = str | int | float | bool | None


class Tracker(Protocol):
    """Records the params, metrics and artifacts of one run; `with` begins it and ends it with its true status.

    A run that was begun before under the same uid is continued. Only the first and the last call wait for a store.
    """

    @property
    def run_id(self) -> str | None:
        """The tracking store's id of the run; None while it is not known, and where nothing is stored."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def log_params(self, params: Mapping[str, ParamValue]) -> None: ...

    def set_tags(self, tags: Mapping[str, str]) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None: ...

    def log_dataset(self, *, name: str, digest: str, context: str, source: str) -> None: ...

    def log_file(self, path: Path) -> None: ...

    def log_model(self, folder: Path) -> None: ...

    def ui_command(self) -> str | None:
        """Return the shell command that opens the store; None where there is nothing to start."""
        ...

    def charts_link(self) -> str | None:
        """Return the page that draws this run, or all runs of its sweep, side by side; None where there is none."""
        ...


@dataclass(frozen=True)
class NullTracker:
    """Takes what any tracker takes and keeps nothing."""

    run_name: str
    uid: str
    parent_uid: str | None
    folder: Path
    tags: Mapping[str, str]

    @property
    def run_id(self) -> str | None:
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def log_params(self, params: Mapping[str, ParamValue]) -> None: ...

    def set_tags(self, tags: Mapping[str, str]) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None: ...

    def log_dataset(self, *, name: str, digest: str, context: str, source: str) -> None: ...

    def log_file(self, path: Path) -> None: ...

    def log_model(self, folder: Path) -> None: ...

    def ui_command(self) -> str | None:
        return None

    def charts_link(self) -> str | None:
        return None
