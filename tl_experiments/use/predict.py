"""`tlx predict`: what a model says of images, in a table that appears whole; a command that was killed goes on."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_experiments.data.decoding import DECODING, decoders
from tl_experiments.data.transforms import DRAWING
from tl_experiments.inference.description import FILE
from tl_experiments.inference.drawing import DrawFile, DrawItems
from tl_experiments.inference.image_classifier import Classifier
from tl_experiments.inference.image_list import STDIN, Listed, list_images
from tl_experiments.inference.prediction_formats import format_of
from tl_experiments.inference.prediction_parts import Parts, claimed
from tl_experiments.inference.prediction_table import Columns
from tl_experiments.inference.streaming import Answered, classify
from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.fingerprint import versions
from tl_experiments.runtime.typed_path import typed_path
from tl_experiments.tracking.console import Console
from tl_experiments.use.model_options import ModelOptions, failures_told

PART_ROWS, PART_SECONDS = 1024, 20.0  # after which a part is finished: what a killed command may lose


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The table that was asked for.

    Attributes:
        output: PATH.csv, PATH.parquet or PATH.jsonl.
        top_k: likeliest classes that are named.
        all_probs: whether each class has its column too.
        overwrite: whether an output that is there makes way.
    """

    output: Path
    top_k: int = 1
    all_probs: bool = False
    overwrite: bool = False


def predict(options: ModelOptions, source: str, wanted: Wanted, *, console: Console) -> int:
    """Classify images and write a row for each; returns how many could not be used.

    Args:
        options: the model.
        source: of images, as `list_images` takes it.
        wanted: the table.
        console: told how far it is.

    Raises:
        UserError: the source, the output or the model cannot be used.
        RunFailed: the output cannot be written, or memory is too small; what is finished is kept.
    """
    form = format_of(wanted.output)
    output, source = typed_path(wanted.output), os.path.expanduser(source)  # noqa: PTH111 - a pattern is no path
    _require_place(output, source, overwrite=wanted.overwrite)
    items, folder = list_images(source), options.folder()
    with options.classifier(folder) as classifier, claimed(output, form=form) as parts:
        _require_place(output, source, overwrite=wanted.overwrite)  # again: who wrote it may just have ended
        columns = Columns(classifier.description.class_names, top_k=wanted.top_k, all_probs=wanted.all_probs)
        items = parts.take_up(items, job=_job(folder, classifier, source, columns))
        if parts.dropped:
            console.notice(f"does {parts.dropped:,} images again that an earlier command had finished: {parts.reason}")
        if parts.num_rows:
            console.notice(f"goes on after {parts.num_rows:,} images that an earlier command has finished")
        start, before = time.monotonic(), parts.num_rows
        with failures_told(classifier):
            _fill(parts, classifier, items, columns, workers=options.num_workers, console=console)
        rate = (parts.num_rows - before) / (time.monotonic() - start)
        parts.join(columns.schema)
    console.notice(f"{_counted(parts.num_rows, parts.num_bad)}, {rate:,.0f} images/s: {wanted.output}")
    return parts.num_bad


def _require_place(output: Path, source: str, *, overwrite: bool) -> None:
    if output.is_dir():
        raise SettingError(f"--output {output}: is a folder; expected the path of a file")
    read = source != STDIN and os.path.exists(source)  # noqa: PTH110 - pathlib raises where a name is too long
    if output.exists() and read and output.samefile(source):
        raise SettingError(f"--output {output}: is what is to be read; expected another path")
    if output.exists() and not overwrite:
        raise SettingError(f"--output {output}: is there already; expected a new path, or --overwrite")


def _job(folder: Path, classifier: Classifier, source: str, columns: Columns) -> dict[str, Any]:
    """Return what determines the rows beside the names of the images."""
    return {
        "model": hashlib.sha256((folder / FILE).read_bytes()).hexdigest(),  # which tells the weights' digest
        "precision": classifier.compute.infer.name,
        "device": classifier.compute.device.type,
        "versions": versions(),
        "columns": columns.schema.names,
        "decoding": {"version": DECODING, "drawing": DRAWING, **decoders()},
        "source": os.path.abspath(source),  # noqa: PTH100 - a pattern is no path
    }


def _fill(
    parts: Parts, classifier: Classifier, items: Iterator[Listed], columns: Columns, *, workers: int, console: Console
) -> None:
    """Classify what is left, and add a part whenever one is large or old enough."""
    canvas = classifier.description.canvas
    draw = DrawItems(DrawFile(canvas), canvas)
    advance, done, since = console.count("predicting"), 0, time.monotonic()
    answers: list[Answered[Listed]] = []
    with closing(classify(classifier, draw, items, workers=workers)) as stream:
        for answered in stream:
            answers.append(answered)
            done += len(answered.items)
            if sum(len(batch.items) for batch in answers) >= PART_ROWS or time.monotonic() - since > PART_SECONDS:
                parts.add(columns.table(answers))
                answers, since = [], time.monotonic()
            advance(done)
    if answers:
        parts.add(columns.table(answers))


def _counted(num_images: int, num_bad: int) -> str:
    if not num_bad:
        return f"{num_images:,} images"
    return f"{num_images:,} images, {num_bad:,} of them bad (their rows tell in the column error what is wrong)"
