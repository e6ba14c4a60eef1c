"""`tlx evaluate`: a finished model on other labelled images: its scores, and the pictures that a run's own test has."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from tl_experiments.data.bad_images import BadImage, keep_list
from tl_experiments.inference.image_classifier import Classifier
from tl_experiments.runtime.errors import RunFailed
from tl_experiments.runtime.files import disk_fault, make_folder, published_folder, unfinished
from tl_experiments.runtime.process import describe_device
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.evaluation_files import write_evaluation
from tl_experiments.tracking.new_folder import new_folder, require_new
from tl_experiments.tracking.result import read_result
from tl_experiments.use.evaluation import LabelledAnswers, Matched, classify_labelled, match_classes
from tl_experiments.use.labelled_images import labelled_images
from tl_experiments.use.model_options import ModelOptions, failures_told

EVALUATIONS = "outputs/evaluations"
FILE = "evaluation.json"
SHOWN = ("acc", "acc_top5", "f1_macro", "acc_balanced", "loss", "ece", "ece_calibrated")
MOST_NAMED = 5


def evaluate(
    options: ModelOptions, source: str, *, split: str | None = None, output: Path | None = None, console: Console
) -> int:
    """Test a model on labelled images, print and write what it comes to; returns how many could not be used.

    Args:
        options: the model.
        source: a folder of class folders or a table, as `labelled_images` takes it.
        split: train, val or test; None is test where images are split.
        output: a new folder; None is one in `outputs/evaluations`.
        console: told how far it is.

    Raises:
        UserError: the source, the folder or the model cannot be used.
        RunFailed: no image can be used, the folder cannot be written, or memory is too small.
    """
    folder, model = new_folder(output, parent=EVALUATIONS), options.folder()
    images = labelled_images(source, split=split)
    with options.classifier(model) as classifier:
        names, temperature = classifier.description.class_names, classifier.description.temperature
        matched = match_classes(images, names, source=source)
        _tell_classes(matched, console)
        with _told(folder):
            make_folder(folder.parent)
            with unfinished(folder.parent):
                pass  # what cannot be written is known before hours of work
        on_progress = console.work(f"evaluating {len(matched.split):,} images")
        with failures_told(classifier):
            tested = classify_labelled(classifier, matched, workers=options.num_workers, on_progress=on_progress)
        amiss = (
            BadImage(matched.split.name, problem.path, problem.kind, problem.reason) for problem in images.problems
        )
        bad = [*tested.bad, *amiss]
        metrics = tested.metrics(temperature=temperature)
        own = _own_metrics(model)
        said = {
            **_circumstances(options.run, source, classifier, matched),
            "num_images": len(tested.labels),
            "num_bad": len(bad),
            **_finite(metrics),
            "own_test": _finite(own),
        }
        with _told(folder), published_folder(folder) as making:
            (making / FILE).write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            _write_files(making, tested, classifier)
            keep_list(bad, making)
            require_new(folder)  # again: what has come there meanwhile would go
    _tell_bad(bad, console)
    console.rich.print(_table(metrics, own))
    console.notice(f"{len(tested.labels):,} images, {len(bad):,} bad: {folder}")
    return len(bad)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Make of what the disk refuses one line."""
    try:
        yield
    except OSError as error:
        raise RunFailed(f"{folder}: cannot be written ({disk_fault(error)})") from error


def _write_files(folder: Path, tested: LabelledAnswers, classifier: Classifier) -> None:
    write_evaluation(
        folder,
        logits=tested.logits,
        labels=tested.labels,
        temperature=classifier.description.temperature,
        images=tested.images,
        class_names=classifier.description.class_names,
    )


def _circumstances(run: str, source: str, classifier: Classifier, matched: Matched) -> dict[str, Any]:
    return {
        "run": run,
        "weights_sha256": classifier.description.weights_sha256,
        "source": source,
        "split": matched.split.name,
        "device": describe_device(classifier.compute.device),
        "precision": classifier.compute.infer.name,
        "mirrors": classifier.description.mirrors,
        "unknown_classes": matched.unknown,
        "num_unknown": sum(matched.unknown.values()),
        "absent_classes": list(matched.absent),
    }


def _own_metrics(model: Path) -> dict[str, float]:
    """Return the scores of the run's own test, where the model lies in the folder of its run."""
    result = read_result(model.parent)
    return {name: result[f"test/{name}"] for name in SHOWN if isinstance(result.get(f"test/{name}"), float)}


def _finite(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return what JSON can say: of a value that is no finite number, null."""
    return {name: value if value is not None and math.isfinite(value) else None for name, value in metrics.items()}


def _tell_classes(matched: Matched, console: Console) -> None:
    if matched.unknown:
        told = [f"{name} ({count:,} images)" for name, count in matched.unknown.items()]
        console.notice(f"left out, as the model does not know these classes: {_listed(told)}")
    if matched.absent:
        console.notice(f"warning: there is no image of these classes of the model: {_listed(matched.absent)}")


def _tell_bad(bad: list[BadImage], console: Console) -> None:
    for image in bad[:MOST_NAMED]:
        console.notice(f"bad image: {image}")
    if len(bad) > MOST_NAMED:
        console.notice(f"and {len(bad) - MOST_NAMED:,} more bad images")


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else "")


def _table(metrics: Mapping[str, float | None], own: Mapping[str, float]) -> Table:
    """Return the scores here and, where they are known, those of the run's own test."""
    titles = ["here", *(["the run's own test"] if own else [])]
    table = Table("score", *(Column(title, justify="right") for title in titles))
    for name in SHOWN:
        if (here := metrics[name]) is not None:
            table.add_row(name, f"{here:.4f}", *([f"{own[name]:.4f}" if name in own else ""] if own else []))
    return table
