"""File bytes to RGB by rule, so that every kind of image file means the same everywhere.

The rules: EXIF orientation is applied; transparency is composited on white; grey, palette, 1-bit, CMYK and YCbCr images
are converted as Pillow does; in 16-bit and 32-bit integer images 65535 is white (value / 257, whatever the image
holds); of several frames the first counts. Anything else is refused by name.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import PIL
from PIL import Image, features
from PIL.JpegImagePlugin import JpegImageFile

from tl_experiments.runtime.errors import DataError

# Raise it with any change after which the same bytes may become other pixels: images that were kept would stay wrong.
DECODING = 1
RULES = {  # for whoever decodes with other code
    "exif_orientation": "applied",
    "transparency": "composited on white",
    "16_and_32_bit": "value / 257, clipped at 255",
    "frame": "the first",
}

_EXTENSIONS = {
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg"),
    "PNG": (".png",),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
_FORMATS = tuple(_EXTENSIONS)
EXTENSIONS = tuple(extension for extensions in _EXTENSIONS.values() for extension in extensions)
_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(DataError):
    """One image cannot be used; reads `name: reason`.

    Attributes:
        name: of the image.
        kind: of the fault, in a word or two.
        reason: what is wrong and what to do about it.
    """

    def __init__(self, name: str, kind: str, reason: str) -> None:
        super().__init__(name, kind, reason)  # all three, of which its copy is made on the way from a worker
        self.name, self.kind, self.reason = name, kind, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def decoders() -> dict[str, str | None]:
    """Return the versions of what decodes; other ones may give other pixels."""
    return {"pillow": PIL.__version__, "jpeg": features.version("libjpeg_turbo") or features.version("jpg")}


def decode(content: bytes, *, name: str, most_pixels: int | None = None) -> Image.Image:
    """Decode one image to RGB.

    Args:
        content: the bytes of an image file.
        name: for the message.
        most_pixels: of the image, as its header tells before anything is decoded; None is Pillow's limit, which holds
            in any case.

    Raises:
        ImageError: the bytes are no complete image of a known format, or it has too many pixels.
    """
    with _opened(content, name, most_pixels) as image:
        image.load()
        return _to_rgb(_upright(image))


def check(content: bytes, *, name: str) -> None:
    """See that one image can be decoded, and keep nothing of it.

    A JPEG is decoded at an eighth of its size, for which all of its bytes are read in half the time.

    Args:
        content: the bytes of an image file.
        name: for the message.

    Raises:
        ImageError: `decode` would raise it.
    """
    with _opened(content, name) as image:
        if isinstance(image, JpegImageFile):
            image.draft(image.mode, (1, 1))
        image.load()
        _to_rgb(_upright(image))


@contextmanager
def _opened(content: bytes, name: str, most_pixels: int | None = None) -> Iterator[Image.Image]:
    """Read the header; whatever goes wrong then or later becomes an ImageError."""
    if not content:
        raise ImageError(name, "empty", "the file is empty; replace or remove it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                if most_pixels is not None and image.width * image.height > most_pixels:
                    raise Image.DecompressionBombError
                yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = f"more than {most_pixels or Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller"
        raise ImageError(name, "oversized", reason) from error
    except MemoryError:  # the machine's fault, not the image's
        raise
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        reason = f"cannot be read as an image ({_reason(error)}); replace or remove it"
        raise ImageError(name, "undecodable", reason) from error


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"damaged, or none of {', '.join(_FORMATS)}"
    return " ".join(str(error).split()) or type(error).__name__


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except MemoryError:
        raise
    except Exception:  # damaged metadata do not make the pixels unreadable
        return image
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float64).clip(0, 65535) / 257
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), coloured).convert("RGB")
    return image.convert("RGB")
