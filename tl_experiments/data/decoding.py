"""File bytes to RGB by rule, so that every kind of image file means the same everywhere.

The rules: EXIF orientation is applied; transparency is composited on white; grey, palette, 1-bit, CMYK and YCbCr images
are converted as Pillow does; in 16-bit and 32-bit integer images 65535 is white (value / 257, whatever the image
holds); of several frames the first counts. Anything else is refused by name.
"""

import io
import re
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
MOST_PIXELS = 89_478_485  # Pillow's own limit: above it it warns of decompression bombs
MOST_SCANS = 100  # of a JPEG, as libtiff allows; cameras and programs write up to 20
_SCAN, _END = b"\xda", b"\xd9"
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)  # of a segment with a length, or the end
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

# Once and for all: to change filters for a while changes them for all threads, which would get in each other's way.
warnings.simplefilter("error", Image.DecompressionBombWarning)


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


def decode(content: bytes, *, name: str, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Decode one image to RGB.

    Args:
        content: the bytes of an image file.
        name: for the message.
        most_pixels: of the image, as its header tells before anything is decoded; MOST_PIXELS hold in any case.

    Raises:
        ImageError: the bytes are no complete image of a known format, or it has too many pixels or scans.
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


def image_suffix(content: bytes) -> str:
    """Return how a file with this content is called, without the dot; it is an image that `check` has seen."""
    with _opened(content, "") as image:
        return {"JPEG": "jpg", "TIFF": "tif"}.get(image.format or "", (image.format or "").lower())


@contextmanager
def _opened(content: bytes, name: str, most_pixels: int = MOST_PIXELS) -> Iterator[Image.Image]:
    """Read the header; whatever goes wrong then or later becomes an ImageError."""
    if not content:
        raise ImageError(name, "empty", "the file is empty; replace or remove it")
    most_pixels = min(most_pixels, MOST_PIXELS)
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if image.width * image.height > most_pixels:
                raise Image.DecompressionBombError
            if isinstance(image, JpegImageFile) and _has_too_many_scans(content):
                raise ValueError(f"a JPEG of more than {MOST_SCANS} scans, each of which takes as long as an image")
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = f"more than {most_pixels:,} pixels; make it smaller"
        raise ImageError(name, "oversized", reason) from error
    except MemoryError:  # the machine's fault, not the image's
        raise
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        reason = f"cannot be read as an image ({_reason(error)}); replace or remove it"
        raise ImageError(name, "undecodable", reason) from error


def _has_too_many_scans(content: bytes) -> bool:
    """Whether a JPEG goes over all of its pixels more than MOST_SCANS times; those of its thumbnails do not count."""
    if content.count(b"\xff" + _SCAN) <= MOST_SCANS:
        return False
    num_scans, place = 0, 0
    while num_scans <= MOST_SCANS and (marker := _MARKER.search(content, place)) and marker[1] != _END:
        num_scans += marker[1] == _SCAN
        place = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2])
    return num_scans > MOST_SCANS


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
