"""Images whose content occurs twice: in two splits, which is a leak, or under two classes, one of which is wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Place:
    """Where an image is.

    Attributes:
        split: its name.
        label: its class.
        name: of the image.
    """

    split: str
    label: int
    name: str


@dataclass(frozen=True)
class Repeat:
    """An image whose content was seen before.

    Attributes:
        place: where it is.
        first: where the same content was seen first.
    """

    place: Place
    first: Place

    @property
    def mislabelled(self) -> bool:
        return self.place.label != self.first.label

    @property
    def leak(self) -> bool:
        return self.place.split != self.first.split


def find_repeats(digests: np.ndarray, place: Callable[[int], Place]) -> list[Repeat]:
    """Compare images by the digests of their contents, in order.

    Args:
        digests: uint8 (N, 32).
        place: of an image that occurs more than once, by its position.
    """
    firsts: dict[bytes, int] = {}
    repeats = []
    for at in _suspects(digests).tolist():
        if (first := firsts.setdefault(digests[at].tobytes(), at)) != at:
            repeats.append(Repeat(place(at), place(first)))
    return repeats


def _suspects(digests: np.ndarray) -> np.ndarray:
    """Return the positions, ascending, of digests that begin as others do: nearly always those that are others'."""
    beginnings = np.ascontiguousarray(digests[:, :8]).view(np.uint64).ravel()
    order = np.argsort(beginnings, kind="stable")
    same = beginnings[order[1:]] == beginnings[order[:-1]]
    return np.unique(np.concatenate([order[1:][same], order[:-1][same]]))


def repeat_notices(repeats: Sequence[Repeat], *, command: str | None) -> list[str]:
    """Say what a run should know of them, in a line for each kind.

    Args:
        repeats: of its splits.
        command: that lists all; None where there is none.
    """
    kinds = {
        "images in more than one split, whose scores show memory": [repeat for repeat in repeats if repeat.leak],
        "images under more than one class": [repeat for repeat in repeats if repeat.mislabelled],
    }
    more = f"; {command} lists all" if command else ""
    return [
        f"warning: {kind}: {len(found):,}, such as {found[0].place.name}, the same as {found[0].first.name}{more}"
        for kind, found in kinds.items()
        if found
    ]
