"""Images for the browser as ``data:`` addresses: the bytes themselves, never mixed up."""

from __future__ import annotations

import base64
import io

import numpy as np

THUMBNAIL = 112  # pixels; the gallery shows about half of that, twice as many suit fine screens
# Of WebP; below about 90 the edges of flat illustrations show ringing.
FINAL, PREVIEW = {"quality": 92}, {"quality": 70, "method": 0}


def data_uri(
    image: np.ndarray, side: int | None = None, form: str = "webp", quick: bool = False
) -> str:
    """Return an image uint8 (H, W, 3), or (H, W, 4) with opacity, as a ``data:`` address.

    Parameters
    ----------
    side
        The longest side in pixels to shrink to, for thumbnails; None keeps the size.
    form
        ``webp`` (small) or ``png`` (lossless, for the API).
    quick
        Coarser and faster, for previews that are gone in a moment.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image, dtype=np.uint8))
    if side is not None and max(picture.size) > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format=form, **(PREVIEW if quick else FINAL))
    return f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
