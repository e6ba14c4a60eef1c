"""Image files of every kind, made here, and the pixels that they have to become, worked out by hand."""

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Golden:
    """A file and what it shows.

    Attributes:
        content: bytes of the file.
        pixels: uint8 (H, W, 3).
        tolerance: how far a pixel may be from it; above 0 where the format loses something.
        naive: whether `Image.open(...).convert("RGB")` gives the same.
    """

    content: bytes
    pixels: np.ndarray
    tolerance: int = 0
    naive: bool = True


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def png(rows: np.ndarray, *, colour_type: int, bits: int, side: tuple[int, int] | None = None) -> bytes:
    """A PNG of raw rows, as Pillow does not write them.

    Args:
        rows: uint8 (H, bytes of a row).
        colour_type, bits: of the header.
        side: width and height that the header claims.
    """
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    width, height = side or (rows.shape[1] * 8 // (channels * bits), len(rows))
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows), 9)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in chunks)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2).astype(np.uint8)


def _on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Laid on white by the definition of transparency."""
    share = alpha[..., None].astype(np.float64) / 255
    return np.round(colour * share + 255 * (1 - share)).astype(np.uint8)


def _animated(file_format: str, **options: object) -> bytes:
    first, *others = (Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue"))
    return encoded(first, file_format, save_all=True, append_images=others, duration=50, **options)


def _rotated(file_format: str, pixels: np.ndarray, orientation: int, **options: object) -> bytes:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    return encoded(Image.fromarray(np.ascontiguousarray(pixels)), file_format, exif=exif, **options)


def _make() -> dict[str, Golden]:
    random = np.random.default_rng(0)
    colour = random.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    grey, alpha = random.integers(0, 256, (2, 4, 6), dtype=np.uint8)
    bits = random.integers(0, 2, (4, 8), dtype=np.uint8)
    deep = np.array([[0, 128, 257, 4095], [32896, 40000, 65000, 65535]], dtype=np.uint16)
    deep_colour = random.integers(0, 2**16, (4, 6, 3), dtype=np.uint16)
    red = np.zeros((4, 6, 3), dtype=np.uint8)
    red[..., 0] = 255
    smooth = np.full((16, 24, 3), 255, dtype=np.uint8)
    smooth[:8, :8] = (255, 0, 0)
    upright = np.full((6, 10, 3), 255, dtype=np.uint8)
    upright[:2, :3] = (255, 0, 0)

    palette = Image.fromarray((grey // 64).astype(np.uint8), mode="P")
    entries = np.array([[10, 20, 30], [200, 0, 0], [0, 200, 0], [0, 0, 250]], dtype=np.uint8)
    palette.putpalette(entries.tobytes())
    entry_alpha = np.array([255, 0, 128, 64], dtype=np.uint8)
    ink = np.dstack([255 - colour, np.zeros_like(grey)])

    return {
        "grey PNG": Golden(encoded(Image.fromarray(grey), "PNG"), _grey(grey)),
        "grey and alpha PNG": Golden(
            encoded(Image.fromarray(np.dstack([grey, alpha]), mode="LA"), "PNG"),
            _on_white(_grey(grey), alpha),
            tolerance=1,
            naive=False,
        ),
        "RGBA WebP": Golden(
            encoded(Image.fromarray(np.dstack([colour, alpha])), "WEBP", lossless=True, exact=True),
            _on_white(colour, alpha),
            tolerance=1,
            naive=False,
        ),
        "palette PNG": Golden(encoded(palette, "PNG"), entries[grey // 64]),
        "palette and alpha PNG": Golden(
            encoded(palette, "PNG", transparency=entry_alpha.tobytes()),
            _on_white(entries[grey // 64], entry_alpha[grey // 64]),
            tolerance=1,
            naive=False,
        ),
        "CMYK TIFF": Golden(encoded(Image.fromarray(ink, mode="CMYK"), "TIFF"), colour, tolerance=1),
        "CMYK JPEG": Golden(
            encoded(Image.fromarray(np.dstack([255 - smooth, smooth[..., 0] * 0]), mode="CMYK"), "JPEG", quality=95),
            smooth,
            tolerance=4,
        ),
        "1-bit PNG": Golden(encoded(Image.fromarray(bits * 255).convert("1"), "PNG"), _grey(bits * 255)),
        "1-bit TIFF": Golden(encoded(Image.fromarray(bits * 255).convert("1"), "TIFF"), _grey(bits * 255)),
        "16-bit PNG": Golden(encoded(Image.fromarray(deep), "PNG"), _grey(np.round(deep / 257)), naive=False),
        "16-bit TIFF": Golden(encoded(Image.fromarray(deep), "TIFF"), _grey(np.round(deep / 257)), naive=False),
        "16-bit RGB PNG": Golden(
            png(deep_colour.astype(">u2").reshape(4, -1).view(np.uint8), colour_type=2, bits=16),
            np.round(deep_colour / 257).astype(np.uint8),
            tolerance=1,
        ),
        "32-bit TIFF": Golden(
            encoded(Image.fromarray(deep.astype(np.int32)), "TIFF"), _grey(np.round(deep / 257)), naive=False
        ),
        "animated GIF": Golden(_animated("GIF"), red),
        "animated PNG": Golden(_animated("PNG"), red),
        "animated WebP": Golden(_animated("WEBP", lossless=True), red),
        "turned PNG": Golden(_rotated("PNG", upright.transpose(1, 0, 2)[::-1], 6), upright, naive=False),
        "turned TIFF": Golden(_rotated("TIFF", upright.transpose(1, 0, 2)[:, ::-1], 8), upright),
        "turned JPEG": Golden(
            _rotated("JPEG", smooth[::-1, ::-1], 3, quality=95, subsampling=0), smooth, tolerance=4, naive=False
        ),
        "turned WebP": Golden(_rotated("WEBP", upright[:, ::-1], 2, lossless=True), upright, naive=False),
    }


GOLDEN = _make()
FLOAT_TIFF = encoded(Image.fromarray(np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)), "TIFF")
