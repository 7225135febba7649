"""The one reader of picture files: stimuli, galleries, published and drawn pictures, one's own.

Whoever opens a file of a picture gets the same picture: turned as the camera says, transparency
laid on white, one frame, eight bits. How large a file says its picture is comes first: a small
file may declare any size.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from explorer.files import COPY, guard, reason
from explorer.types import UserError

if TYPE_CHECKING:
    from PIL import Image

# What a browser or a scanner writes. PIL knows more, and runs another program for some of them.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM")
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jp2")
# Pixels of the longer side that are kept: our choice, twice what the scores and the largest
# embedder here look at. The photographs of NSD, BOLD5000 and LAION-fMRI are smaller.
LARGEST = 1024
ORIENTATION = 0x0112  # EXIF 2.3
SIDEWAYS = (5, 6, 7, 8)
TWELVE_BITS = 2**12  # a camera's; of 65535 less than 7 %, which no stimulus stays under
TEXT = "afterimage"  # the keyword of the text in a picture of ours
MOST_PIXELS = 2**26  # declared by a file: our choice, a third of a gigabyte while it is read
SMALL = 75  # quality of a WebP that is 100 pixels wide; our choice, by eye


def read_picture(
    source: str | Path | bytes,
    name: str = "",
    do: str = COPY,
    missing: str = "copy it there",
    largest: int | None = LARGEST,
    most: int = MOST_PIXELS,
) -> np.ndarray:
    """Return a picture, uint8 RGB (H, W, 3).

    16-bit values become 8-bit ones, 0 to 65535 as 0 to 255; floating-point values are read from 0
    (black) to 1 (white), and other ranges are refused, as is what has no agreed white.

    Parameters
    ----------
    source
        A file, or what is in one.
    name
        What the picture is called in a sentence, e.g. "The picture of n01443537_22563"; else the
        file.
    do, missing
        How a sentence ends, and how it does where there is no such file.
    largest
        A longer side is reduced to this many pixels; None keeps all.
    most
        Pixels that a file may declare; one with more is refused before it is unpacked.
    """
    from PIL import Image, UnidentifiedImageError

    Image.init()  # the formats it looks among have to be known
    file = None if isinstance(source, bytes) else Path(source)
    who = f"{name or file} cannot be read" + ("" if name else " as a picture")
    where = f"{file}: " if name and file else ""
    try:
        with Image.open(io.BytesIO(source) if file is None else file, formats=FORMATS) as opened:
            width, height = opened.size
            if width * height <= most:
                return _pixels(opened, largest)
    except FileNotFoundError as error:
        raise UserError(f"{name or 'The picture'} is missing: {file}; {missing}.") from error
    except UnidentifiedImageError as error:
        why = "it is in no known format, or empty"
        raise UserError(f"{who} ({where}{why}); {do}.") from error
    except _Unknown as error:
        raise UserError(f"{who} ({where}{error}); save it with 8 bits a colour.") from error
    except MemoryError as error:
        raise UserError(f"{who} ({where}it needs more memory than there is); {do}.") from error
    except Exception as error:  # PIL's formats have no common error for a damaged file
        raise UserError(f"{who} ({where}{reason(error)}); {do}.") from error
    raise UserError(
        f"{who} ({where}it declares {width:,} x {height:,} pixels, of which at most "
        f"{most:,} are read); make it smaller."
    )


def picture_size(source: str | Path | bytes, do: str = COPY) -> tuple[int, int]:
    """Return width and height of a picture as it stands upright, from its header alone."""
    from PIL import Image

    Image.init()
    file, name = source, source
    if isinstance(source, bytes):
        file, name = io.BytesIO(source), "The picture"
    with guard(name, "a picture", do), Image.open(file, formats=FORMATS) as opened:
        width, height = opened.size
        # what a PNG says of that may stand behind its pixels, which are then unpacked
        sideways = width * height <= MOST_PIXELS and opened.getexif().get(ORIENTATION) in SIDEWAYS
        return (height, width) if sideways else (width, height)


def write_lossless(pixels: np.ndarray, text: str) -> bytes:
    """Return a picture uint8 (H, W, 3) as a PNG that carries a text, see `read_lossless`."""
    from PIL import Image, PngImagePlugin

    told, packed = PngImagePlugin.PngInfo(), io.BytesIO()
    told.add_itxt(TEXT, text)
    Image.fromarray(pixels).save(packed, "PNG", pnginfo=told)
    return packed.getvalue()


def small_picture(pixels: np.ndarray, side: int) -> bytes:
    """Return a picture uint8 (H, W, 3) as a small WebP whose longest side is ``side`` at most."""
    from PIL import Image

    picture, packed = Image.fromarray(np.ascontiguousarray(pixels, np.uint8)), io.BytesIO()
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    picture.save(packed, "WEBP", quality=SMALL)
    return packed.getvalue()


def read_lossless(path: Path) -> tuple[np.ndarray, str]:
    """Return the pixels, as they are, and the text that `write_lossless` put together."""
    from PIL import Image

    with (
        guard(path, "a kept picture", "remove it"),
        Image.open(path, formats=("PNG",)) as opened,
    ):
        if opened.mode != "RGB" or opened.width * opened.height > MOST_PIXELS:
            raise ValueError("it is no picture of ours")
        return np.asarray(opened), str(opened.text[TEXT])


class _Unknown(Exception):
    """Values of which nothing says what is white."""


def _pixels(picture: Image.Image, largest: int | None) -> np.ndarray:
    """Return the pixels of an opened picture, uint8 (H, W, 3)."""
    from PIL import Image

    opened = picture
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        picture = Image.fromarray(_eight_bits(picture))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
    elif picture.mode not in ("L", "RGB", "CMYK", "YCbCr"):
        picture = picture.convert("RGB")  # a palette cannot be reduced
    if largest is not None:  # never enlarges; JPEG is unpacked smaller at once
        picture.thumbnail((largest, largest), Image.Resampling.LANCZOS, reducing_gap=3.0)
    opened.load()  # TIFF is turned by that
    turn = _turn(opened)
    if turn is not None:
        picture = picture.transpose(turn)
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return np.asarray(picture.convert("RGB"))


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """Return how a picture is turned upright by its camera's remark, None for not at all."""
    from PIL.Image import Transpose

    upright = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        return upright.get(picture.getexif().get(ORIENTATION))
    except Exception:  # a damaged remark of the camera; the picture may well be sound
        return None


def _eight_bits(picture: Image.Image) -> np.ndarray:
    """Return the values of a grey picture of more bits, uint8 (H, W)."""
    values = np.asarray(picture)
    if picture.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not 0 <= low <= high <= 1:  # NaN too
            raise _Unknown(
                f"its floating-point values go from {low:g} to {high:g}, expected 0 for black to "
                "1 for white"
            )
        return np.round(values * 255).astype(np.uint8)
    if picture.mode == "I" and picture.format != "PPM":  # of which the largest value is 65535
        raise _Unknown("its whole numbers of 32 bits do not say which one is white")
    most = int(values.max(initial=0))
    if 1 < most < TWELVE_BITS:
        raise _Unknown(
            f"its 16-bit values end at {most}, as those of 8 to 12 bits do, so it would be nearly "
            "black"
        )
    return np.round(np.arange(2**16) / 257).astype(np.uint8)[values]
