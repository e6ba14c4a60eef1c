"""run.json: what a run is called, written once when it begins; with config.yaml beside it, it can be gone on with."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.files import publish_text

FILE = "run.json"
CONFIG = "config.yaml"  # resolved, beside it
FORMAT = 1
GROUPS = (
    "backbone", "strategy", "head", "optimizer", "scheduler", "dataset", "augmentation", "runtime", "tracking",
)  # fmt: skip


@dataclass(frozen=True)
class RunRecord:
    """What is known of a run before it has done anything.

    Attributes:
        uid: the run's own id.
        name: for people.
        choices: group → chosen option.
        sweep_id: uid of the sweep that it belongs to.
        began: ISO 8601 time in UTC, to the microsecond, so that of two runs the later one is known.
    """

    uid: str
    name: str
    choices: Mapping[str, str]
    sweep_id: str | None
    began: str

    def is_saved(self, folder: Path) -> bool:
        """Whether the record in a folder is that of this run."""
        try:
            return type(self).load(folder).uid == self.uid
        except SettingError:
            return False

    def save(self, folder: Path) -> None:
        publish_text(folder / FILE, json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the record of a run's folder.

        Raises:
            SettingError: there is none, or it is not what a run of this program wrote.
        """
        path = folder / FILE
        try:
            if path.exists() and not path.is_file():
                raise ValueError("not a plain file")
            fields = json.loads(path.read_text(encoding="utf-8"))
            if fields.pop("format") != FORMAT:
                raise ValueError("another format")
            record = cls(**fields)
            texts = (record.uid, record.name, record.began, *record.choices, *record.choices.values())
            if not all(isinstance(text, str) for text in texts) or not isinstance(record.sweep_id, str | None):
                raise TypeError("values of another type")
            if missing := [group for group in GROUPS if group not in record.choices]:
                raise ValueError(f"no choice of {', '.join(missing)}")
        except FileNotFoundError:
            raise SettingError(
                f"{folder}: no run began here ({FILE} is missing); expected the folder of a run"
            ) from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise SettingError(f"{path}: cannot be read as the record of a run: {error}") from error
        return record
