"""The test images that a run got most confidently wrong, on one sheet, which is no plot: Pillow draws it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

TILE = 160  # pixels; images that are smaller are enlarged by whole pixels, so that their pixels stay visible
COLUMNS = 6
GAP, TITLE, ABOVE, BELOW = 12, 36, 34, 26  # pixels between tiles, and of the texts
LINE, SMALL = 13, 10  # sizes of type
NAME_LENGTH, FILE_LENGTH = 20, 28


@dataclass(frozen=True)
class Mistake:
    """An image that was classified wrongly.

    Attributes:
        image: (3, H, W) uint8.
        name: of the image, such as a path below the root.
        true, predicted: names of classes.
        confidence: probability of the predicted class, 0 to 1.
    """

    image: np.ndarray
    name: str
    true: str
    predicted: str
    confidence: float

    def caption(self) -> tuple[str, str]:
        """What stands above the image, two lines, and below it."""
        predicted, true = (short(name, length=NAME_LENGTH) for name in (self.predicted, self.true))
        return f"pred {predicted} · {self.confidence:.0%}\ntrue {true}", short(self.name, length=FILE_LENGTH)


def wrong_gallery(mistakes: Sequence[Mistake]) -> Image.Image:
    """Draw mistakes in the given order, from none to any number."""
    columns = min(COLUMNS, max(len(mistakes), 3))
    rows = -(-len(mistakes) // columns)
    width, height = TILE + GAP, ABOVE + TILE + BELOW
    sheet = Image.new("RGB", (columns * width + GAP, TITLE + rows * height + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    title = "Most confidently wrong test images" if mistakes else "No test image was classified wrongly"
    pen.text((sheet.width // 2, TITLE // 2), title, fill="black", font=_font(LINE + 3), anchor="mm")
    for index, mistake in enumerate(mistakes):
        row, column = divmod(index, columns)
        middle, top = GAP + column * width + TILE // 2, TITLE + row * height + ABOVE
        tile = as_tile(Image.fromarray(np.ascontiguousarray(mistake.image.transpose(1, 2, 0))))
        sheet.paste(tile, (middle - tile.width // 2, top + (TILE - tile.height) // 2))
        above, below = mistake.caption()
        pen.text((middle, top - 4), above, fill="black", font=_font(LINE), anchor="md", align="center", spacing=2)
        pen.text((middle, top + TILE + 4), below, fill="dimgray", font=_font(SMALL), anchor="ma")
    return sheet


def as_tile(image: Image.Image) -> Image.Image:
    """Return an image at the size of a tile: a large one shrunk, a small one enlarged by a whole factor."""
    tile = image.copy()
    tile.thumbnail((TILE, TILE))
    factor = TILE // max(tile.size)
    return tile.resize((tile.width * factor, tile.height * factor), Image.Resampling.NEAREST)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font of the other pictures, which comes with Matplotlib."""
    return ImageFont.truetype(findfont("DejaVu Sans"), size)


def short(name: str, *, length: int) -> str:
    """Return a name that fits: the middle goes, since names often differ at the end."""
    return name if len(name) <= length else f"{name[: length // 2]}…{name[-(length // 2 - 1) :]}"
