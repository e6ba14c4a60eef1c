"""Images whose content occurs twice: in two splits, which is a leak, or under two classes, one of which is wrong."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


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


def find_repeats(images: Iterable[tuple[str, Place]]) -> list[Repeat]:
    """Compare images by the digests of their contents, in order.

    Args:
        images: digests and places.
    """
    firsts: dict[str, Place] = {}
    return [Repeat(place, first) for digest, place in images if (first := firsts.setdefault(digest, place)) != place]


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
