"""Every kind of image file becomes the right RGB, and damaged ones are named."""

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.data.golden import FLOAT_TIFF, GOLDEN, encoded
from tl_experiments.data.decoding import check, decode
from tl_experiments.runtime.errors import DataError

RED, WHITE = (255, 0, 0), (255, 255, 255)
NOISE = Image.effect_noise((64, 64), 50)


def pixel(content: bytes, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    image = decode(content, name="x")
    assert image.mode == "RGB"
    return image.getpixel(at)


@pytest.mark.parametrize("kind", GOLDEN)
def test_golden(kind):
    golden = GOLDEN[kind]
    pixels = np.asarray(decode(golden.content, name="x")).astype(int)
    np.testing.assert_allclose(pixels, golden.pixels, rtol=0, atol=golden.tolerance)
    check(golden.content, name="x")


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "GIF", "TIFF", "PPM", "JPEG", "WEBP"])
def test_formats(file_format):
    assert np.allclose(pixel(encoded(Image.new("RGB", (8, 8), RED), file_format)), RED, atol=3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation):
    """A red top left corner comes back wherever the camera's orientation had put it."""
    upright = np.full((6, 10, 3), 255, dtype=np.uint8)
    upright[:2, :3] = RED
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1], 8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    np.testing.assert_array_equal(np.asarray(decode(content, name="x")), upright)


def test_orientation_of_a_jpeg():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.new("RGB", (40, 24)), "JPEG", exif=exif)
    assert decode(content, name="x").size == (24, 40)


def test_grey_and_one_bit():
    assert pixel(encoded(Image.new("L", (4, 4), 77), "PNG")) == (77, 77, 77)
    assert pixel(encoded(Image.new("1", (4, 4), 1), "PNG")) == WHITE
    assert pixel(encoded(Image.new("1", (4, 4), 0), "TIFF")) == (0, 0, 0)


def test_transparency_is_laid_on_white():
    assert pixel(encoded(Image.new("RGBA", (4, 4), (*RED, 0)), "PNG")) == WHITE
    assert pixel(encoded(Image.new("RGBA", (4, 4), (*RED, 255)), "PNG")) == RED
    assert pixel(encoded(Image.new("LA", (4, 4), (0, 0)), "PNG")) == WHITE
    half = pixel(encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), "PNG"))
    assert np.allclose(half, (255, 127, 127), atol=1)


def test_palette_with_and_without_transparency():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 255, 255, 0, 0])
    assert pixel(encoded(image, "PNG")) == RED
    assert pixel(encoded(image, "PNG", transparency=1)) == WHITE
    assert pixel(encoded(image, "PNG", transparency=b"\xff\x00")) == WHITE
    assert pixel(encoded(image, "PNG", transparency=0)) == RED


def test_a_transparent_colour_of_an_rgb_image():
    assert pixel(encoded(Image.new("RGB", (4, 4), RED), "PNG", transparency=RED)) == WHITE


def test_cmyk_is_not_inverted():
    content = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")
    assert np.allclose(pixel(content), RED, atol=3)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_cut(file_format):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    image = decode(encoded(Image.fromarray(values), file_format), name="x")
    assert np.asarray(image)[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


def test_a_dark_sixteen_bit_image_is_scaled_by_the_same_rule():
    values = np.array([[0, 255]], dtype=np.uint16)
    assert np.asarray(decode(encoded(Image.fromarray(values), "PNG"), name="x"))[0].tolist() == [[0] * 3, [1] * 3]


def test_thirty_two_bit_integers():
    values = np.array([[-4, 65535, 9_000_000]], dtype=np.int32)
    assert np.asarray(decode(encoded(Image.fromarray(values), "TIFF"), name="x"))[0, :, 0].tolist() == [0, 255, 255]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_metadata_do_not_lose_the_image():
    plain = encoded(Image.new("RGB", (4, 4), RED), "PNG")
    body = b"eXIf" + b"Exif\x00\x00II*\x00\xff\xff\xff\xff"
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    assert pixel(plain[:33] + chunk + plain[33:]) == RED


def bomb(side: int) -> bytes:
    """A PNG of side x side pixels in its header and nothing behind."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return start + struct.pack(">I", 9) + b"IDAT"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"this is text", "none of BMP, GIF, JPEG"),
        (encoded(NOISE, "JPEG")[:900], "truncated"),
        (encoded(NOISE, "PNG")[:900], "cannot be read"),
        (FLOAT_TIFF, "floating-point"),
        (bomb(10_000), "pixels; make it smaller"),
        (bomb(40_000), "pixels; make it smaller"),
    ],
    ids=["empty", "text", "truncated jpeg", "truncated png", "float", "large", "bomb"],
)
def test_what_cannot_be_read_is_named_in_one_line(content, reason):
    for look in (decode, check):
        with pytest.raises(DataError, match=reason) as caught:
            look(content, name="cats/7.jpg")
        assert str(caught.value).startswith("cats/7.jpg: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "GIF", "TIFF", "PPM", "JPEG", "WEBP"])
def test_what_does_not_begin_as_an_image_is_none(file_format):
    content = encoded(NOISE, file_format)
    assert decode(content, name="x").size == NOISE.size
    check(content, name="x")
    for look in (decode, check):
        with pytest.raises(DataError, match=r"^x: "):
            look(content[::-1], name="x")


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process as Linux does")
@pytest.mark.parametrize("look", ["decode", "check"])
def test_a_machine_short_of_memory_does_not_make_an_image_bad(look, tmp_path):
    (tmp_path / "large.png").write_bytes(encoded(Image.new("1", (9_000, 9_000)), "PNG"))
    short = f"""
import resource
from pathlib import Path
from tl_experiments.data.decoding import {look}

content = Path("large.png").read_bytes()
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 50_000_000, -1))
{look}(content, name="x")
"""
    done = subprocess.run(
        [sys.executable, "-c", short], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr.splitlines()[-1].startswith("MemoryError")


def fails(look, content: bytes) -> bool:
    try:
        look(content, name="x")
    except DataError:
        return True
    return False


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_is_cut_anywhere_fails_its_check_as_it_fails_to_decode(mode, progressive):
    """The check decodes an eighth of the pixels, and still has to see all of the bytes."""
    content = encoded(NOISE.convert(mode).crop((0, 0, 24, 20)), "JPEG", progressive=progressive)
    cuts = [content[:end] for end in range(0, len(content), 3)]
    assert [fails(check, cut) for cut in cuts] == [fails(decode, cut) for cut in cuts]
    assert all(fails(check, cut) for cut in cuts[:-1])
    assert not fails(check, content)


def test_formats_outside_the_list_are_not_decoded():
    with pytest.raises(DataError, match="none of"):
        decode(encoded(Image.new("RGB", (16, 16)), "ICO"), name="x")


def test_fewer_pixels_may_be_asked_for_and_more_are_never_decoded():
    image = encoded(Image.new("RGB", (100, 50)), "PNG")
    assert decode(image, name="x", most_pixels=5000).size == (100, 50)
    with pytest.raises(DataError, match="x: more than 4,999 pixels; make it smaller"):
        decode(image[:60], name="x", most_pixels=4999)  # of which there is the header alone
    for side in (10_000, 40_000):
        with pytest.raises(DataError, match="x: more than 89,478,485 pixels; make it smaller"):
            decode(bomb(side), name="x", most_pixels=200_000_000)


def with_scans(content: bytes, count: int) -> bytes:
    """A JPEG whose last scan comes again and again."""
    start, end = content.rindex(b"\xff\xda"), content.rindex(b"\xff\xd9")
    return content[:end] + content[start:end] * (count - content.count(b"\xff\xda")) + content[end:]


def test_a_jpeg_of_endless_scans_is_refused_before_they_are_decoded():
    content = encoded(NOISE, "JPEG", progressive=True)
    assert decode(with_scans(content, 100), name="x").size == NOISE.size
    for look in (decode, check):
        with pytest.raises(DataError, match=r"x: cannot be read as an image \(a JPEG of more than 100 scans"):
            look(with_scans(content, 101), name="x")


def test_what_looks_like_a_scan_in_metadata_or_behind_the_end_is_none():
    note = b"\xff\xda\x00\x08" * 200
    content = encoded(NOISE, "JPEG", progressive=True, comment=note) + note
    assert content.count(b"\xff\xda") > 400
    np.testing.assert_array_equal(decode(content, name="x"), decode(encoded(NOISE, "JPEG", progressive=True), name="x"))
