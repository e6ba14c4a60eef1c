"""A heat map over its image."""

import matplotlib
import numpy as np
from PIL import Image

LEAST_SIDE = 336  # pixels; a smaller image is enlarged by a whole factor, so that its pixels stay visible
COLOR_MAP = "plasma"  # as bright as it is hot (perceptually uniform), for colour-blind readers too
OPAQUE = 0.8  # how far the hottest place hides the image


def enlarged(crop: np.ndarray) -> Image.Image:
    """Return an image uint8 (3, S, S) at a size that can be looked at."""
    image = Image.fromarray(np.ascontiguousarray(crop.transpose(1, 2, 0)))
    factor = -(-LEAST_SIDE // image.width)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def overlay(crop: np.ndarray, heat: np.ndarray) -> Image.Image:
    """Colour an image by a heat map: what is cold stays grey, and the hotter a place is, the more of it is colour.

    Args:
        crop: uint8 (3, S, S).
        heat: float32 (S, S), 0 to 1.

    Returns:
        RGB, at the size of `enlarged`.
    """
    grey = np.asarray(enlarged(crop).convert("L"), dtype=np.float32)[:, :, None] / 255
    hot = np.asarray(Image.fromarray(heat).resize((grey.shape[1], grey.shape[0]), Image.Resampling.BILINEAR))
    colour = matplotlib.colormaps[COLOR_MAP](hot)[:, :, :3]
    share = OPAQUE * hot[:, :, None]
    return Image.fromarray((255 * ((1 - share) * grey + share * colour)).round().astype(np.uint8))
