"""Every form in which people save a picture gives what it shows, or is refused."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explorer.images import LARGEST, picture_size, read_picture
from explorer.types import UserError

SIDE = 64
RAMP = np.tile(np.linspace(0, 255, SIDE), (SIDE, 1)).astype(np.uint8)  # 0 to 255, left to right
RGB = np.stack([RAMP, RAMP.T, np.full_like(RAMP, 128)], -1)
GREY = np.stack([RAMP] * 3, -1)
OPAQUE = Image.fromarray(np.full_like(RAMP, 255))
COLOUR = Image.fromarray(RGB)


def packed(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png16(values: np.ndarray) -> bytes:
    """Return a PNG of 16 bits a colour, which PIL does not write: uint16 (H, W, 3)."""
    height, width, _ = values.shape
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + end

    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def turned(orientation: int, form: str = "JPEG", image: Image.Image = COLOUR) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if form == "JPEG" else {}
    return packed(image, form, exif=exif, **options)


WIDE = RAMP.astype(np.uint16) * 257
FORMS = {
    "RGB, PNG": (packed(COLOUR, "PNG"), RGB),
    "grey, PNG": (packed(Image.fromarray(RAMP), "PNG"), GREY),
    "grey of 16 bits, PNG": (packed(Image.fromarray(WIDE), "PNG"), GREY),
    "grey of 16 bits, TIFF": (packed(Image.fromarray(WIDE), "TIFF"), GREY),
    "grey of 16 bits, PGM": (b"P5 64 64 65535 " + WIDE.astype(">u2").tobytes(), GREY),
    "RGB of 16 bits, PNG": (png16(RGB.astype(np.uint16) * 257), RGB),
    "0 to 1, TIFF": (packed(Image.fromarray((RAMP / 255).astype(np.float32)), "TIFF"), GREY),
    "1 bit": (packed(Image.fromarray(RAMP > 127), "PNG"), np.where(GREY > 127, 255, 0)),
    "grey and alpha": (packed(Image.merge("LA", [Image.fromarray(RAMP), OPAQUE]), "PNG"), GREY),
    "RGBA": (packed(Image.merge("RGBA", [*COLOUR.split(), OPAQUE]), "PNG"), RGB),
    "palette": (packed(COLOUR.quantize(256), "PNG"), RGB),
    "CMYK, JPEG": (packed(COLOUR.convert("CMYK"), "JPEG", quality=95), RGB),
    "turned, JPEG": (turned(6), np.rot90(RGB, -1)),
    "turned, WebP": (turned(3, "WEBP"), np.rot90(RGB, 2)),
    "turned, TIFF of 16 bits": (turned(8, "TIFF", Image.fromarray(WIDE)), np.rot90(GREY)),
    "mirrored, JPEG": (turned(2), RGB[:, ::-1]),
    "animated": (
        packed(
            COLOUR.quantize(256),
            "GIF",
            save_all=True,
            append_images=[Image.fromarray(255 - RGB).quantize(256)],
        ),
        RGB,
    ),
    "WebP": (packed(COLOUR, "WEBP", lossless=True), RGB),
    "BMP": (packed(COLOUR, "BMP"), RGB),
    "JPEG 2000": (packed(COLOUR, "JPEG2000"), RGB),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_what_it_shows(tmp_path, form):
    content, shown = FORMS[form]
    (tmp_path / "a.jpg").write_bytes(content)  # the ending says nothing
    found = read_picture(tmp_path / "a.jpg")
    assert found.dtype == np.uint8
    assert found.shape == shown.shape
    assert np.abs(found.astype(int) - shown.astype(int)).mean() < 8
    np.testing.assert_array_equal(read_picture(content), found)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_as_the_camera_says(orientation):
    upright = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, -1),
        7: RGB.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(RGB),
    }
    np.testing.assert_array_equal(read_picture(turned(orientation, "PNG")), upright[orientation])


def test_transparency_is_laid_on_white_in_each_form():
    half = Image.fromarray(np.where(RAMP > 127, 255, 0).astype(np.uint8))
    clear = Image.merge("RGBA", [*Image.new("RGB", half.size, "red").split(), half])
    expected = np.full((SIDE, SIDE, 3), 255, np.uint8)
    expected[RAMP > 127] = 255, 0, 0
    for content in (packed(clear, "PNG"), packed(clear.quantize(4), "PNG"), packed(clear, "GIF")):
        np.testing.assert_array_equal(read_picture(content), expected)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (RAMP.astype(np.int32), "whole numbers of 32 bits do not say which one is white"),
        (RAMP.astype(np.float32), "go from 0 to 255, expected 0 for black to 1 for white"),
        (RAMP / np.float32(255) - 1, "go from -1 to 0, expected 0"),
        (np.full((4, 4), np.nan, np.float32), "go from nan to nan, expected 0"),
    ],
)
def test_values_without_an_agreed_white_are_refused(tmp_path, values, sentence):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=rf"a.tif cannot .*{sentence}.*; save it with 8 bits"):
        read_picture(tmp_path / "a.tif")


def test_a_large_photograph_is_reduced_upright_and_a_small_picture_is_not():
    photo = Image.fromarray(RGB).resize((3000, 1500))
    for form in ("JPEG", "PNG"):
        found = read_picture(turned(6, form, photo))
        assert found.shape == (LARGEST, LARGEST // 2, 3)
        small = np.asarray(Image.fromarray(found).resize((SIDE, SIDE), Image.Resampling.BOX))
        assert np.abs(small.astype(int) - np.rot90(RGB, -1)).mean() < 4
    assert read_picture(packed(photo, "JPEG"), largest=None).shape == (1500, 3000, 3)
    assert read_picture(packed(COLOUR, "PNG")).shape == RGB.shape
    flat = read_picture(packed(Image.new("P", (LARGEST + 1, 2)), "PNG"))
    assert flat.shape == (2, LARGEST, 3)


def test_the_size_is_that_of_the_picture_upright(tmp_path):
    for orientation, size in ((1, (8, 4)), (3, (8, 4)), (6, (4, 8))):
        content = turned(orientation, "PNG", Image.new("RGB", (8, 4)))
        (tmp_path / "a.png").write_bytes(content)
        assert picture_size(tmp_path / "a.png") == size == read_picture(content).shape[1::-1]
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match="a.png cannot be read as a picture"):
        picture_size(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_small_file_that_declares_a_huge_picture_takes_no_memory(tmp_path):
    Image.new("1", (12_000, 12_000)).save(tmp_path / "huge.png")
    assert (tmp_path / "huge.png").stat().st_size < 30_000
    with pytest.raises(
        UserError,
        match=r"huge.png .*\(it declares 12,000 x 12,000 pixels, of which at most 67",
    ):
        read_picture(tmp_path / "huge.png")
    Image.new("1", (14_000, 14_000)).save(tmp_path / "bomb.png")  # PIL's own bound
    with pytest.raises(UserError, match="bomb.png cannot be read as a picture .*exceeds limit"):
        read_picture(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404 Not Found</html>", packed(COLOUR, "PNG")[:100], turned(1)[:900]],
)
def test_what_is_no_picture_is_one_sentence(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"a.png cannot be read as a picture \(.+\); fetch it\.$"):
        read_picture(tmp_path / "a.png", do="fetch it")
    with pytest.raises(UserError, match=r"^The picture of x cannot be read \(.+a.png: .+\); copy"):
        read_picture(tmp_path / "a.png", "The picture of x")
    with pytest.raises(UserError, match=r"^The picture in a.tar cannot be read \([^:]+\); copy"):
        read_picture(content, "The picture in a.tar")
    with pytest.raises(UserError, match="^The picture of x is missing: .*b.png; draw it"):
        read_picture(tmp_path / "b.png", "The picture of x", missing="draw it")


def test_no_other_program_is_run_to_read_one():
    """PIL hands PostScript to Ghostscript."""
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    with pytest.raises(UserError, match="no known format"):
        read_picture(page, "The page")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_remark_of_the_camera_spoils_no_picture():
    exif = b"Exif\0\0II*\0" + b"\xff" * 40
    content = packed(COLOUR, "JPEG", exif=exif, quality=95)
    assert np.abs(read_picture(content).astype(int) - RGB).mean() < 8


def test_nobody_else_opens_a_picture():
    root = Path(__file__).resolve().parents[2]
    sources = [f for room in ("explorer", "backends") for f in (root / room).rglob("*.py")]
    openers = {f.name for f in sources if "Image.open(" in f.read_text(encoding="utf-8")}
    assert openers == {"images.py"}


def test_twelve_bits_in_sixteen_are_refused() -> None:
    camera = np.linspace(0, 4095, 64, dtype=np.uint16)[None].repeat(64, axis=0)
    with pytest.raises(UserError, match="its 16-bit values end at 4095, as those of 8 to 12 bits"):
        read_picture(packed(Image.fromarray(camera), "PNG"), "The picture")
    black = read_picture(packed(Image.fromarray(camera * 0), "PNG"), "The picture")
    assert black.max() == 0


def test_the_size_of_a_picture_that_declares_too_much_is_read_without_unpacking_it(monkeypatch):
    from PIL import PngImagePlugin

    unpacked = []
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: unpacked.append(self))
    small = packed(Image.new("RGB", (5, 3)), "PNG")
    assert picture_size(small) == (5, 3) and len(unpacked) == 1  # a remark may stand behind it
    head = small.index(b"IHDR")
    ihdr = b"IHDR" + (9000).to_bytes(4, "big") * 2 + small[head + 12 : head + 17]
    large = small[:head] + ihdr + zlib.crc32(ihdr).to_bytes(4, "big") + small[head + 21 :]
    assert picture_size(large) == (9000, 9000) and len(unpacked) == 1
