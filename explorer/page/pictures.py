"""Images for the browser as ``data:`` addresses: the bytes themselves, never mixed up."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import io
import textwrap
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

import numpy as np

from explorer.cache import Cache

if TYPE_CHECKING:
    from explorer.catalogue import Catalogue

THUMBNAIL = 112  # pixels; the gallery shows about half of that, twice as many suit fine screens
# Of WebP; below about 90 the edges of flat illustrations show ringing.
FINAL, PREVIEW = {"quality": 92}, {"quality": 70, "method": 0}
KEPT = 2**25  # bytes of addresses; our choice, some 2,000 pictures of the embedded study
_kept = Cache(KEPT, len)
_withheld: ContextVar[str] = ContextVar("withheld", default="")
_quality: ContextVar[int] = ContextVar("quality", default=FINAL["quality"])


@contextlib.contextmanager
def handed_out(withheld: str, quality: int = FINAL["quality"]) -> Iterator[None]:
    """Make pictures for others to keep: of a WebP ``quality``, and some of them not at all.

    Where ``withheld`` is a sentence, it stands in the place of every picture that is a study's
    own or others'; what was generated here is shown either way.
    """
    tokens = _withheld.set(withheld), _quality.set(quality)
    try:
        yield
    finally:
        _withheld.reset(tokens[0])
        _quality.reset(tokens[1])


def data_uri(
    image: np.ndarray, side: int | None = None, form: str = "webp", quick: bool = False
) -> str:
    """Return an image uint8 (H, W, 3), or (H, W, 4) with opacity, as a ``data:`` address, kept.

    Parameters
    ----------
    side
        The longest side in pixels to shrink to, for thumbnails; None keeps the size.
    form
        ``webp`` (small) or ``png`` (lossless, for the API).
    quick
        Coarser and faster, for previews that are gone in a moment.
    """
    image = np.ascontiguousarray(image, dtype=np.uint8)
    if quick:
        return _encoded(image, side, form, quick)
    seen = hashlib.blake2b(image, digest_size=16).digest()  # takes a hundredth of encoding it
    key = seen, image.shape, side, form, _quality.get()
    return _kept.get(key, lambda: _encoded(image, side, form, quick))


def _encoded(image: np.ndarray, side: int | None, form: str, quick: bool) -> str:
    from PIL import Image

    picture = Image.fromarray(image)
    if side is not None and max(picture.size) > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format=form, **(PREVIEW if quick else {"quality": _quality.get()}))
    return f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def shown_uri(
    catalogue: Catalogue,
    dataset: str,
    stimulus: str,
    side: int | None = None,
    form: str = "webp",
) -> str:
    """Return the picture of a stimulus, or the sentence in its place, see `data_uri`."""
    if why := catalogue.without_picture(dataset, stimulus) or _withheld.get():
        return _sentence_uri(why)
    return data_uri(catalogue.image(dataset, stimulus), side, form)


def found_uri(image: np.ndarray, made: str = "retrieved") -> str:
    """Return a picture that may be others', see `shown_uri`.

    ``made``: how it came about, generated, retrieved or published.
    """
    why = "" if made == "generated" else _withheld.get()
    return _sentence_uri(why) if why else data_uri(image)


def _sentence_uri(why: str) -> str:
    """Return a sentence as a ``data:`` address: drawn, so that it is read like a picture."""
    lines = textwrap.wrap(why, 30)
    top = 200 - 14 * (len(lines) - 1)
    text = "".join(
        f'<text x="200" y="{top + 28 * i}">{html.escape(line)}</text>'
        for i, line in enumerate(lines)
    )
    drawing = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="400" height="400" viewBox="0 0 400 400">'
        '<rect width="400" height="400" fill="#ddd"/><g fill="#222" font-family="sans-serif" '
        f'font-size="20" text-anchor="middle">{text}</g></svg>'
    )
    return f"data:image/svg+xml;base64,{base64.b64encode(drawing.encode()).decode('ascii')}"
