"""What a backbone expects of its images."""

from dataclasses import dataclass


@dataclass(frozen=True)
class InputSpec:
    """Preprocessing that the pretrained weights were evaluated with.

    Attributes:
        size: side of the square image in pixels.
        mean, std: per RGB channel, of values in 0..1.
        interpolation: bilinear or bicubic, antialiased.
        crop_pct: share of the resized shorter side that the centre crop keeps, in (0, 1].
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    crop_pct: float
