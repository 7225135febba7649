"""Images for the browser as ``data:`` addresses: the bytes themselves, never mixed up."""

from __future__ import annotations

import base64
import io

import numpy as np

THUMBNAIL = 112  # pixels; the gallery shows about half of that, twice as many suit fine screens
QUALITY = 92  # WebP; below about 90 the edges of flat illustrations show ringing


def data_uri(image: np.ndarray, side: int | None = None, form: str = "webp") -> str:
    """Return an image uint8 (H, W, 3) as a ``data:`` address.

    Parameters
    ----------
    side
        The longest side in pixels to shrink to, for thumbnails; None keeps the size.
    form
        ``webp`` (small) or ``png`` (lossless, for the API).
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image, dtype=np.uint8))
    if side is not None and max(picture.size) > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format=form, quality=QUALITY)
    return f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
