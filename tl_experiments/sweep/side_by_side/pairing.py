"""Which test images two runs share: the same contents, never only the same names where more is known."""

from dataclasses import dataclass

import numpy as np

from tl_experiments.sweep.notes import SOURCE
from tl_experiments.sweep.side_by_side.compared_run import ComparedRun


@dataclass(frozen=True)
class Common:
    """The images that both runs were tested on.

    Attributes:
        first, second: (M,) int64 positions of the same images among the predictions of either.
        sentence: what images these are, or why there are none.
    """

    first: np.ndarray
    second: np.ndarray
    sentence: str

    def __len__(self) -> int:
        return len(self.first)


def common_images(first: ComparedRun, second: ComparedRun) -> Common:
    """Find the test images that two runs share.

    A result tells the identity of the contents of the test images. Where it is the same, so are the images; where it
    is not, which of them are shared is not known: a name may be that of another image, as of the same row of another
    table. Where an earlier version did not tell it, names and classes do, if both runs took images from one place.
    """
    one, other = first.predictions, second.predictions
    if one is None or other is None:
        untested = first if one is None else second
        return _nothing(f"run {untested.number} left no predictions of test images")
    contents = [run.fact("test_fingerprint") for run in (first, second)]
    same_names = one.same_test(other)
    if None not in contents and contents[0] == contents[1] and one.classes == other.classes:
        return _all(len(one.images), f"the same {len(one.images):,} test images")
    if None not in contents and contents[0] != contents[1]:
        return _nothing("the test images have other contents, and names alone do not tell which of them are the same")
    same_data = first.fact("dataset_fingerprint") == second.fact("dataset_fingerprint") is not None
    if not same_data and not _same_source(first, second):
        return _nothing("the test images come from different places")
    if same_names:
        return _all(len(one.images), f"{len(one.images):,} test images that have the same names and classes")
    places = {key: place for place, key in enumerate(zip(other.images, other.classes, strict=True))}
    found = [
        (place, places[key]) for place, key in enumerate(zip(one.images, one.classes, strict=True)) if key in places
    ]
    sizes = f"of {len(one.images):,} and {len(other.images):,} test images"
    if not found:
        return _nothing(f"{sizes} none has the same name and class")
    ours, theirs = np.array(found, dtype=np.int64).T
    return Common(ours, theirs, f"the {len(found):,} {sizes} that have the same names and classes")


def _same_source(first: ComparedRun, second: ComparedRun) -> bool:
    places = [[run.dataset.get(key) for key in SOURCE] for run in (first, second)]
    return places[0] == places[1] and any(places[0])


def _all(count: int, sentence: str) -> Common:
    return Common(np.arange(count), np.arange(count), sentence)


def _nothing(reason: str) -> Common:
    return Common(np.array([], dtype=np.int64), np.array([], dtype=np.int64), reason)
