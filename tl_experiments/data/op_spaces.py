"""TrivialAugment's and RandAugment's operations: which there are, how strong they are, and what each sample gets."""

from dataclasses import dataclass

import numpy as np

from tl_experiments.data.hashing import uniforms

NUM_STRENGTHS = 31  # steps from nothing to the most that a space allows
OPS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
BLENDS = (
    "brightness",
    "color",
    "contrast",
    "sharpness",
)  # of the image with black, its greys, their mean, a smooth one
_SIGNED = np.array([not op.startswith(("identity", "posterize", "solarize", "auto", "equalize")) for op in OPS])
_BLENDS = np.array([op in BLENDS for op in OPS])


@dataclass(frozen=True)
class Ops:
    """What is done to each of N samples, in R rounds.

    Attributes:
        space: gives strengths their meaning.
        op: (R, N) int64, places in `OPS`.
        strength: (R, N) int64 in 0..30.
        sign: (R, N) float64, -1 or 1, for operations that go both ways.
    """

    space: "Space"
    op: np.ndarray
    strength: np.ndarray
    sign: np.ndarray

    def magnitudes(self, size: int) -> np.ndarray:
        """(R, N) float64 for images of `size` pixels.

        Units: shear tan of the angle, translate pixels, rotate degrees, blends the factor of the image, posterize bits
        that stay, solarize the grey level from which on is inverted.
        """
        signs = np.where(_SIGNED[self.op], self.sign, 1.0)
        return self.space.magnitudes(size)[self.op, self.strength] * signs + _BLENDS[self.op]

    def geometry(self, size: int) -> np.ndarray:
        """(N, 3, 3) maps from output to input, in -1..1: shears, translations and rotations of all rounds in one."""
        maps = np.broadcast_to(np.eye(3), (self.op.shape[1], 3, 3))
        for op, magnitude in zip(self.op, self.magnitudes(size), strict=True):
            maps = maps @ _output_to_input(op, magnitude, size=size)  # the last round is the first to be undone
        return maps


@dataclass(frozen=True)
class Space:
    """The strongest that each operation may be; strengths lead there from nothing in equal steps.

    Attributes:
        shear: pixels for each pixel from the upper left corner.
        translate_pixels, translate_share: pixels, and a share of the image's side on top.
        degrees: of rotation.
        blend: of brightness, color, contrast and sharpness, whose factors are 1 ± this.
        bits: that posterize takes away.
    """

    shear: float
    translate_pixels: float
    translate_share: float
    degrees: float
    blend: float
    bits: int

    def magnitudes(self, size: int) -> np.ndarray:
        """(14, 31) float64, a row for each of `OPS`, without signs; of blends the factor's distance from 1."""
        translate = self.translate_pixels + self.translate_share * size
        most = {"shear": self.shear, "translate": translate, "rotate": self.degrees}
        most |= dict.fromkeys(BLENDS, self.blend)
        level = np.linspace(0.0, 1.0, NUM_STRENGTHS)
        rows = {op: level * most.get(op.partition("_")[0], 0.0) for op in OPS}
        rows |= {"posterize": np.round(8 - self.bits * level), "solarize": np.linspace(255.0, 0.0, NUM_STRENGTHS)}
        return np.stack([rows[op] for op in OPS])

    def draw(self, indices: np.ndarray, *, num_ops: int, strength: int | None = None, seed: int, epoch: int) -> Ops:
        """Draw for each sample, uniformly and with replacement.

        Args:
            indices: (N,) sample indices; what a sample gets does not depend on the others.
            num_ops: R, rounds.
            strength: of all, in 0..30; None draws it too.
            seed: of the run.
            epoch: each epoch draws anew.
        """

        def uniform(stream: str) -> np.ndarray:
            streams = [f"augment/{stream}/{number}" for number in range(num_ops)]
            return np.stack([uniforms(indices, seed=seed, stream=stream, epoch=epoch) for stream in streams])

        op = (uniform("op") * len(OPS)).astype(np.int64)
        drawn = (
            (uniform("strength") * NUM_STRENGTHS).astype(np.int64) if strength is None else np.full_like(op, strength)
        )
        return Ops(space=self, op=op, strength=drawn, sign=np.where(uniform("sign") < 0.5, -1.0, 1.0))


# As torchvision's TrivialAugmentWide and RandAugment have them; the papers' own code counts as they do.
TRIVIAL = Space(shear=0.99, translate_pixels=32.0, translate_share=0.0, degrees=135.0, blend=0.99, bits=6)
RANDOM = Space(shear=0.3, translate_pixels=0.0, translate_share=150.0 / 331.0, degrees=30.0, blend=0.9, bits=4)


def _output_to_input(op: np.ndarray, magnitude: np.ndarray, *, size: int) -> np.ndarray:
    """(N, 3, 3) maps of one round, the identity for colours; shears leave the upper left corner where it is."""

    def of(name: str) -> np.ndarray:
        return np.where(op == OPS.index(name), magnitude, 0.0)

    shear_x, shear_y, angle = of("shear_x"), of("shear_y"), np.radians(of("rotate"))
    right, down = (2 * np.trunc(of(name)) / size for name in ("translate_x", "translate_y"))
    zero, one = np.zeros(len(op)), np.ones(len(op))
    rows = [
        [np.cos(angle), shear_x - np.sin(angle), shear_x - right],
        [shear_y + np.sin(angle), np.cos(angle), shear_y - down],
        [zero, zero, one],
    ]
    return np.moveaxis(np.array(rows), -1, 0)
