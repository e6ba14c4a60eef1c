"""`tlx scan`: everything that is wrong with a folder of images, or with those that a table lists, in one table."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Column, Table
from rich.text import Text

from tl_experiments.data.bad_images import bad_images
from tl_experiments.data.check_store import check_store
from tl_experiments.data.folder_scan import Problem
from tl_experiments.data.own_images import list_images, resolved_place
from tl_experiments.data.reading import Reading, check_split, read_split
from tl_experiments.data.repeats import Place, Repeat, find_repeats
from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.process import num_cores
from tl_experiments.tracking.console import Console


@dataclass(frozen=True)
class Scan:
    """What a folder or a table holds, and what is wrong with it.

    Attributes:
        findings: by path.
        num_images: in each split.
    """

    findings: tuple[Problem, ...]
    num_images: dict[str, int]


def scan(root: str, *, follow_links: bool, workers: int | None, console: Console) -> int:
    """Print everything that is wrong with images of a folder or a table; returns the exit code, 1 where something is.

    Args:
        root: as `dataset.root`.
        follow_links: out of the root too.
        workers: processes that read and decode; None takes one for each core.
        console: where to.

    Raises:
        DataError: there is no such folder or table, or no image in it, or the table itself is malformed.
        SettingError: the number of workers is none.
    """
    if workers is not None and workers < 0:
        raise SettingError(f"--workers {workers}: expected 0 or more")
    place = resolved_place(root)
    workers = num_cores() if workers is None else workers
    found = find_faults(place, follow_links=follow_links, workers=workers, console=console)
    if found.findings:
        console.rich.print(_table(found.findings))
    console.notice(_summary(found))
    return 1 if found.findings else 0


def find_faults(root: Path, *, follow_links: bool, workers: int, console: Console) -> Scan:
    """Read and check all images of a folder or a table.

    Args:
        root: resolved, if it is a folder.
        follow_links: out of the root too.
        workers: processes that read and decode; 0 does so in this one.
        console: told how far it is.

    Raises:
        DataError: there is no image in it, or the table itself is malformed.
    """
    found = list_images(root, follow_links=follow_links)
    splits = [found.splits[name] for name in ("train", "val", "test") if name in found.splits]
    store = check_store(notice=console.notice)
    readings: list[Reading] = []
    for split in splits:
        on_progress = console.work(f"reading {len(split):,} {split.name} images")
        reading = read_split(split, workers=workers, on_progress=on_progress)
        readings.append(check_split(reading, workers=workers, store=store, work=console.work))
    findings = [
        *found.problems,
        *(Problem(image.name, image.kind, image.reason) for reading in readings for image in bad_images(reading)),
        *(finding for repeat in _repeats(readings) for finding in _of_repeat(repeat)),
    ]
    return Scan(
        tuple(sorted(findings, key=lambda finding: (finding.kind, finding.path))),
        {split.name: len(split) for split in splits},
    )


def _repeats(readings: Sequence[Reading]) -> list[Repeat]:
    """Compare every image that can be used with those before it."""
    places = [(reading.split, int(at)) for reading in readings for at in reading.sound_positions()]

    def place(number: int) -> Place:
        split, at = places[number]
        return Place(split.name, int(split.labels[at]), split.source.name(int(split.indices[at])))

    return find_repeats(np.concatenate([reading.sound_digests().array() for reading in readings]), place)


def _of_repeat(repeat: Repeat) -> list[Problem]:
    """Return what is wrong with a copy: of another class and in another split too, it is two things."""
    kinds = {"leak": (repeat.leak, ", in another split"), "mislabelled": (repeat.mislabelled, ", of another class")}
    wrong = {kind: where for kind, (holds, where) in kinds.items() if holds} or {"duplicate": ""}
    same = f"the same image as {repeat.first.name}"
    return [Problem(repeat.place.name, kind, same + where) for kind, where in wrong.items()]


def _table(findings: Sequence[Problem]) -> Table:
    """Return a line for each; paths are folded where they are too long, never cut."""
    table = Table(Column("file", overflow="fold"), Column("problem", no_wrap=True), Column("what", overflow="fold"))
    for finding in findings:
        table.add_row(Text(finding.path), Text(finding.kind), Text(finding.reason))
    return table


def _summary(found: Scan) -> str:
    """Return how much was looked at, and how much of it is wrong."""
    images = ", ".join(f"{count:,} {split}" for split, count in found.num_images.items())
    total = sum(found.num_images.values())
    if not found.findings:
        return f"{total:,} images ({images}): nothing is wrong"
    kinds = Counter(finding.kind for finding in found.findings)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
    return f"{total:,} images ({images}): {len(found.findings):,} findings: {counts}"
