"""`tlx explain`: a picture for each image, which shows why a model says what it says."""

import difflib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import torch
from rich.table import Column, Table
from rich.text import Text

from tl_experiments.data.decoding import ImageError
from tl_experiments.data.image_files import printable
from tl_experiments.data.transforms import centre_crop
from tl_experiments.explain.pictures import explanation_picture
from tl_experiments.explain.saliency import METHODS, Explanation, explain
from tl_experiments.inference.drawing import DrawFile
from tl_experiments.inference.image_classifier import Classifier
from tl_experiments.inference.image_list import Listed, list_images
from tl_experiments.runtime.errors import RunFailed, SettingError
from tl_experiments.runtime.files import disk_fault, make_folder, publish, unfinished
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.pictures import save_picture

STEM_LENGTH = 60  # letters of up to 4 bytes; file systems take names of 255
MOST_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The pictures that were asked for.

    Attributes:
        folder: for them.
        class_name: that is explained; None is the most probable one of each image.
        method: as of `explain`.
        limit: images at most.
    """

    folder: Path
    class_name: str | None
    method: str
    limit: int

    def __post_init__(self) -> None:
        """Raises SettingError: a value is none that can be."""
        if self.limit < 1:
            raise SettingError(f"--limit {self.limit}: expected 1 or more")
        if self.method not in METHODS:
            raise SettingError(f"--method {self.method}: expected {' or '.join(METHODS)}")


def explain_images(
    model: AbstractContextManager[Classifier], sources: Sequence[str], wanted: Wanted, *, console: Console
) -> int:
    """Write a picture for each image, and print what it was taken for; returns how many could not be used.

    A picture appears whole, as soon as it is finished.

    Args:
        model: opened when the images have been found.
        sources: of images, each as `list_images` takes it.
        wanted: the pictures.
        console: told how far it is.

    Raises:
        UserError: a source or the model cannot be used, or the model knows no such class.
        RunFailed: the pictures cannot be written.
    """
    images, more = _first(sources, limit=wanted.limit)
    if more:
        console.notice(f"the first {wanted.limit:,} images are explained, others are left out; for more: --limit N")
    table = Table("image", "answer", Column("probability", justify="right"), Column("picture", overflow="fold"))
    names, num_bad, num_flat = set[str](), 0, 0
    with model as classifier:
        target = _target(wanted.class_name, classifier.description.class_names)
        advance = console.work("explaining images")
        for done, image in enumerate(images, start=1):
            try:
                canvas = torch.from_numpy(DrawFile(classifier.description.canvas)(image))
            except ImageError as error:
                console.notice(f"bad image: {printable(str(error))}")
                num_bad += 1
            else:
                explanation = explain(classifier, canvas, target=target, method=wanted.method)
                name = _new_name(image, names)
                _write(wanted.folder / name, image, canvas, explanation, classifier)
                table.add_row(*_row(image, explanation, classifier.description.class_names), Text(printable(name)))
                num_flat += explanation.is_flat
            advance(done, len(images))
    if names:
        console.rich.print(table)
    if num_flat:
        console.notice(f"nothing in {num_flat:,} of these images speaks for the class: their pictures show no heat")
    console.notice(f"{len(names):,} explained, {num_bad:,} bad: {wanted.folder}")
    return num_bad


def _first(sources: Sequence[str], *, limit: int) -> tuple[list[Listed], bool]:
    """Return the first images of all sources, and whether there are more."""
    found = chain.from_iterable([list_images(source) for source in sources])  # each is looked for at once
    images = list(islice(found, limit))
    return images, next(found, None) is not None


def _target(name: str | None, class_names: Sequence[str]) -> int | None:
    if name is None or name in class_names:
        return None if name is None else class_names.index(name)
    near = class_names if len(class_names) <= MOST_NAMED else difflib.get_close_matches(name, class_names)
    expected = f"expected one of {', '.join(near)}" if near else f"expected one of its {len(class_names):,} classes"
    raise SettingError(f"--class {name}: the model does not know this class; {expected}")


def _new_name(image: Listed, names: set[str]) -> str:
    """Name a picture after its image, as none is named yet, and note the name."""
    stem, number = Path(image.name).stem[:STEM_LENGTH], 1
    while (name := f"{stem}.png" if number == 1 else f"{stem}-{number}.png").lower() in names:
        number += 1
    names.add(name.lower())  # some file systems see no difference
    return name


def _write(path: Path, image: Listed, canvas: torch.Tensor, explanation: Explanation, classifier: Classifier) -> None:
    crop = centre_crop(canvas, classifier.description.canvas.crop).numpy()
    class_names = classifier.description.class_names
    figure = explanation_picture(crop, explanation, name=printable(image.name), class_names=class_names)
    try:
        make_folder(path.parent)
        with unfinished(path.parent) as file:
            save_picture(figure, file)
            publish(file, path)
    except OSError as error:
        raise RunFailed(f"{path}: cannot be written ({disk_fault(error)})") from error


def _row(image: Listed, explanation: Explanation, class_names: Sequence[str]) -> tuple[Text, Text, str]:
    best = int(explanation.probabilities.argmax())
    return Text(printable(image.name)), Text(class_names[best]), f"{explanation.probabilities[best]:.1%}"
