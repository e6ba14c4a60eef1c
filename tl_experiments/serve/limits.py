"""What a request may ask for, and how one that asks for more is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field

BODIES = 16  # of the largest size that may be in memory at once


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of what one request, and all of them together, may take.

    Attributes:
        body_bytes: of one request.
        images: of one request.
        pixels: of one image, as its header tells before anything is decoded.
        seconds: from the first byte of a request to its answer.
        waiting: images of all requests that are decoded or wait to be.
    """

    body_bytes: int = 20_000_000
    images: int = 32
    pixels: int = 50_000_000
    seconds: float = 30.0
    waiting: int = 256

    @property
    def held_bytes(self) -> int:
        """Of the bodies of all requests that are being answered."""
        return BODIES * self.body_bytes


@dataclass
class Refused(Exception):  # noqa: N818 - it names what happened
    """A request is answered with an error; its message says in one line what is wrong and what was expected.

    Attributes:
        status: 4xx or 5xx.
        message: for the client.
        headers: of the answer.
    """

    status: int
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


def busy(what: str) -> Refused:
    """Return what a client is told that should come again soon."""
    return Refused(503, f"{what}; try again in a second", {"Retry-After": "1"})
