"""Runs as they lie on disk: a real finished one, copied, and changed as a test wants it."""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

STORED = Path(__file__).parent / "use" / "run_of_format_2"


def copy_run(
    folder: Path,
    *,
    uid: str,
    began: str = "2026-01-01T00:00:00.000001+00:00",
    record: Mapping[str, Any] | None = None,
    result: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    wrong: Sequence[int] = (),
) -> Path:
    """Put a copy of the stored run into a new folder.

    Args:
        folder: of the copy.
        uid: of the copy.
        began: of the copy.
        record: what else its `run.json` says otherwise.
        result: what its `result.json` says otherwise.
        config: dotted key → value, of its `config.yaml`.
        wrong: positions of test images to which it gives a wrong answer; where there are any, all others are right.
    """
    shutil.copytree(STORED, folder)
    change_json(folder / "run.json", {"uid": uid, "began": began, **(record or {})})
    told = {"uid": uid, "run_id": uid.ljust(32, "0"), **(result or {})}
    if wrong:
        rows = read_answers(folder)
        for position, row in enumerate(rows):
            row["predicted"] = str((int(row["class"]) + 1) % 10) if position in wrong else row["class"]
            row["confidence"] = f"{0.5 + position / 1000:.4f}"
        write_answers(folder, rows)
        told["test/acc"] = 1 - len(wrong) / len(rows)
    change_json(folder / "result.json", told)
    values = yaml.safe_load((folder / "config.yaml").read_text())
    for key, value in (config or {}).items():
        *path, last = key.split(".")
        node = values
        for part in path:
            node = node[part]
        node[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return folder


def change_json(path: Path, changes: Mapping[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def read_answers(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write_answers(folder: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=("image", "class", "predicted", "confidence"))
        writer.writeheader()
        writer.writerows(rows)
