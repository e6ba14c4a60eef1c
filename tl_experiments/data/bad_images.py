"""Images that cannot be read or decoded: all are named before a run begins, and left out only if that was asked for."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_experiments.data.reading import Reading
from tl_experiments.data.source import Files
from tl_experiments.runtime.errors import DataError
from tl_experiments.runtime.files import publish_text
from tl_experiments.runtime.share import WHOLE, Share

FILE = "skipped_images.csv"
_MOST_NAMED = 10


@dataclass(frozen=True)
class BadImage:
    """One image that cannot be used.

    Attributes:
        split: that it was to be in.
        name: as its source calls it.
        kind: of the fault, in a word or two.
        reason: what is wrong with it.
    """

    split: str
    name: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def bad_images(reading: Reading) -> list[BadImage]:
    """Return what is wrong in a split, in its order."""
    split = reading.split
    return [
        BadImage(split.name, split.source.name(int(split.indices[at])), fault.kind, fault.reason)
        for at, fault in reading.faults.items()
    ]


def skippable(
    files: Files | None, readings: Sequence[Reading], *, class_names: Sequence[str], share: Share = WHOLE
) -> list[BadImage]:
    """Return all bad images where they are to be left out and can be.

    Args:
        files: says what is to be done about them; None: they are no files.
        readings: of all splits.
        class_names: in label order.
        share: of the splits, which was read.

    Raises:
        DataError: there are some and they are not to be left out, or what they would leave cannot be learnt from.
    """
    bad = [image for reading in readings for image in bad_images(reading)]
    if not bad:
        return []
    if files is None or files.on_bad_image != "skip":
        advice = "replace or remove them"
        if files is not None:
            advice += f" ({files.scan_command} lists all)" if files.scan_command else ""
            advice += f", or leave them out by {files.skipped_by}"
        total = sum(len(reading.split) for reading in readings)
        raise DataError(_listing(f"{len(bad):,} of {total:,} images cannot be used; {advice}:", bad))
    for reading in readings if share == WHOLE else ():
        _require_rest(reading, class_names, skipped_by=files.skipped_by)
    return bad


def _listing(head: str, bad: Sequence[BadImage]) -> str:
    """Return a head line, and one for each of the first images."""
    rest = [f"  and {len(bad) - _MOST_NAMED:,} more"] if len(bad) > _MOST_NAMED else []
    return "\n".join([head, *(f"  {image}" for image in bad[:_MOST_NAMED]), *rest])


def _require_rest(reading: Reading, class_names: Sequence[str], *, skipped_by: str) -> None:
    """See that a split keeps at least half of its images and every class that it had.

    Raises:
        DataError: it does not.
    """
    split, bad = reading.split, bad_images(reading)
    if 2 * len(bad) > len(split):
        head = f"{len(bad):,} of {len(split):,} {split.name} images cannot be used, more than half; mend the data:"
        raise DataError(_listing(head, bad))
    emptied = np.setdiff1d(split.labels, reading.sound().labels)
    if len(emptied):
        names = ", ".join(class_names[int(label)] for label in emptied[:3]) + (" ..." if len(emptied) > 3 else "")
        head = f"{skipped_by} would leave no {split.name} image of {names}; mend or add some:"
        raise DataError(_listing(head, bad))


def skip_notice(skipped: Sequence[BadImage], *, total: int, skipped_by: str) -> str:
    """Return the line that tells what was left out."""
    named = "; ".join(str(image) for image in skipped[:3])
    return (
        f"{len(skipped):,} of {total:,} images are left out ({skipped_by}), all listed in {FILE}: "
        f"{named}{'; ...' if len(skipped) > 3 else ''}"
    )


def keep_list(skipped: Sequence[BadImage], folder: Path) -> list[Path]:
    """Write the list of what was left out into a run's folder; returns the paths of what was written.

    Nothing is written where nothing was left out, and a list of an earlier run in the same folder is removed.
    """
    path = folder / FILE
    if not skipped:
        path.unlink(missing_ok=True)
        return []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["split", "image", "reason"])
    writer.writerows([image.split, image.name, image.reason] for image in skipped)
    publish_text(path, text.getvalue())
    return [path]
