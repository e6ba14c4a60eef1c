"""Checkpoints: where training stands, in folders that are whole or not there. Safetensors and JSON, no pickle."""

import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tl_experiments.engine.records import EpochRecord, Progress, Record
from tl_experiments.engine.state import MemberState, TrainerState, compartment, prefixed
from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.files import (
    DamageError,
    disk_fault,
    published_folder,
    remove_folder,
    remove_unfinished,
    verify_folder,
)

FORMAT = 1
TENSORS, VALUES = "state.safetensors", "state.json"
KEPT = 2  # the newest; the best is kept beside them
NAME = re.compile(r"epoch-(\d{4,})-step-(\d{8,})")  # epochs that are over, and steps


@dataclass(frozen=True)
class Resumed:
    """A checkpoint that was read.

    Attributes:
        folder: of the checkpoint.
        state: of the members that were asked for, in their order.
        seconds: that these members had taken.
    """

    folder: Path
    state: TrainerState
    seconds: float


class Checkpoints:
    """The checkpoints of the members that one process trains; no other process writes there meanwhile."""

    def __init__(
        self,
        folder: Path,
        *,
        identity: Mapping[str, Mapping[str, str]],
        description: Mapping[str, Any],
        every_seconds: float,
        notice: Callable[[str], None],
    ) -> None:
        """Write and read nothing yet.

        Args:
            folder: of all checkpoints; made when it is missing.
            identity: of K members, in the order of the trainer's: uid → digests of what must be the same when a run
                goes on, by names for people.
            description: class names, input and what else makes a checkpoint readable by itself.
            every_seconds: inside an epoch; after each one there is a checkpoint anyway.
            notice: told of a disk that is full and of checkpoints that are damaged.
        """
        self._folder = folder
        self._uids = tuple(identity)
        self._identity = identity
        self._description = description
        self._every_seconds = every_seconds
        self._notice = notice
        self._saved = time.monotonic()
        self._position: tuple[int, int, int] | None = None

    def resume(self) -> Resumed | None:
        """Read the newest checkpoint that is sound; None where there is none of these members.

        What is later than it, of another run in the same folder or damaged, is removed: it would pass for the newest.

        Raises:
            SettingError: the members' configuration, data or weights are not those of their checkpoint, or another
                version of the program wrote it.
        """
        remove_unfinished(self._folder)
        for folder in reversed(self._all()):
            resumed = self._resume(folder)
            if resumed is not None:
                self._position = resumed.state.position
                return resumed
            remove_folder(folder)
        return None

    def _resume(self, folder: Path) -> Resumed | None:
        try:
            verify_folder(folder)
            values = json.loads((folder / VALUES).read_bytes())
            if not {*self._uids} <= {*values["uids"]}:
                self._notice(f"checkpoint {folder} is another run's, and is removed")
                return None
            self._require_same(values, folder)
            share = len(self._uids) / len(values["uids"])  # of a time that members take together
            return Resumed(folder, self._read(folder, values), float(values["seconds"]) * share)
        except (DamageError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._notice(f"checkpoint {folder} is left out, the one before counts: {error}")
            return None

    def due(self, record: Record) -> bool:
        """Whether it is time for a checkpoint: an epoch is over, or a long one goes on."""
        return isinstance(record, EpochRecord) or (
            isinstance(record, Progress) and time.monotonic() - self._saved >= self._every_seconds
        )

    def save(self, state: TrainerState, *, seconds: float) -> Path | None:
        """Write a checkpoint, unless the last one stands at the same place; returns the newest there is.

        A disk that is full costs a note and no training: the checkpoints that are there stay.

        Args:
            state: of all members.
            seconds: that the run has taken.
        """
        folder = self._folder / f"epoch-{state.epochs:04}-step-{state.steps:08}"
        if self._position != state.position:
            self._saved = time.monotonic()
            try:
                with published_folder(folder) as making:
                    self._write(making, state, seconds)
            except (OSError, SafetensorError) as error:
                self._notice(f"no checkpoint at {folder.name}: {_reason(error)}; training goes on")
            else:
                self._position = state.position
                self._remove_old(state)
        return self.newest

    @property
    def newest(self) -> Path | None:
        """The folder of the last one; None where there is none."""
        return next(reversed(self._all()), None)

    def remove(self) -> None:
        """Remove all of them."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _all(self) -> list[Path]:
        """Return the folders of all checkpoints, oldest first, whatever the clock says."""
        found = [path for path in self._folder.glob("epoch-*") if NAME.fullmatch(path.name)]
        return sorted(found, key=_order)

    def _write(self, folder: Path, state: TrainerState, seconds: float) -> None:
        tensors: dict[str, torch.Tensor] = {}
        for uid, member in zip(self._uids, state.members, strict=True):
            tensors |= prefixed(uid, {name: _own(tensor) for name, tensor in member.tensors.items()})
        save_file(tensors, folder / TENSORS)
        values = {
            "format": FORMAT,
            "uids": self._uids,
            "identity": self._identity,
            "reasons": [member.reason for member in state.members],
            "epochs": state.epochs,
            "epoch_steps": state.epoch_steps,
            "epoch_samples": state.epoch_samples,
            "steps": state.steps,
            "micro_batch": state.micro_batch,
            "phase": state.phase,
            "seconds": seconds,
            **self._description,
        }
        (folder / VALUES).write_text(json.dumps(values, indent=2), encoding="utf-8")

    def _require_same(self, values: Mapping[str, Any], folder: Path) -> None:
        if values["format"] != FORMAT:
            raise SettingError(f"{folder}: a checkpoint of format {values['format']}; this program reads {FORMAT}")
        changed = {
            name
            for uid in self._uids
            for name, digest in self._identity[uid].items()
            if values["identity"][uid].get(name) != digest
        }
        if changed:
            what = " and ".join(sorted(changed))
            raise SettingError(f"{folder}: {what} changed since; restore what changed to go on, or begin a new run")

    def _read(self, folder: Path, values: Mapping[str, Any]) -> TrainerState:
        tensors = load_file(folder / TENSORS)
        reasons = dict(zip(values["uids"], values["reasons"], strict=True))
        members = tuple(MemberState(compartment(uid, tensors), reason=reasons[uid]) for uid in self._uids)
        return TrainerState(
            epochs=int(values["epochs"]),
            epoch_steps=int(values["epoch_steps"]),
            epoch_samples=int(values["epoch_samples"]),
            steps=int(values["steps"]),
            micro_batch=values["micro_batch"],
            phase=str(values["phase"]),
            members=members,
        )

    def _remove_old(self, state: TrainerState) -> None:
        """Keep the newest two, and the one that was saved when the best epoch so far was over."""
        everything = self._all()
        best = _best_epoch(state)
        of_best = [folder for folder in everything if _order(folder)[0] == best][:1]  # others are of the epoch after it
        for folder in everything:
            if folder not in (*everything[-KEPT:], *of_best):
                remove_folder(folder)


def _order(folder: Path) -> tuple[int, int]:
    epochs, steps = folder.name.removeprefix("epoch-").split("-step-")
    return int(epochs), int(steps)


def _best_epoch(state: TrainerState) -> int:
    """Return the epoch with the highest val/acc of any member; 0 before the first is over."""
    scores = [member.tensors["best/score"].tolist() for member in state.members]
    return int(max(scores, key=lambda score: (score[1], -score[2]))[0])


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor as safetensors wants it: on the CPU, contiguous, in memory that holds nothing else."""
    own = tensor.detach().cpu().contiguous()
    return own.clone() if own.untyped_storage().nbytes() != own.nbytes else own


def _reason(error: OSError | SafetensorError) -> str:
    """Say what the disk refused; safetensors hides the number in its text."""
    if isinstance(error, OSError):
        return disk_fault(error)
    number = re.search(r"os error (\d+)", str(error))
    return disk_fault(OSError(int(number[1]), str(error))) if number else str(error)
