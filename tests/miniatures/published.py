"""Published results in miniature: result k of a planted set can be told from all others."""

import numpy as np
import torch
from PIL import Image

from explorer.choosing import default_request
from explorer.drawing import reconstruct

# Test images in the order in which their first trials came: six in session 1, four in session 2.
APPEARANCE = [f"nsd-{number:05d}" for number in (
    71_200, 2_950, 46_002, 310, 55_001, 8_009, 61_873, 4_130, 12_345, 33_333,
)]  # fmt: skip
ASCENDING = sorted(APPEARANCE)
NUMBERS = [int(stimulus[4:]) for stimulus in APPEARANCE]


def picture(k: int, size: int = 12) -> np.ndarray:
    """Return result number k of a planted set, uint8: grey whose value is the number."""
    return np.full((size, size, 3), 20 + 10 * k, np.uint8)


def number(image: np.ndarray) -> int:
    """Return which result of a planted set a picture is."""
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    values = {int(value) for value in np.unique(image)}
    assert len(values) == 1, "one picture, not parts of two"
    return (values.pop() - 20) // 10


def planted(n: int = 10) -> torch.Tensor:
    """Return n results as MindEye2 saves them: float32 (N, 3, H, W) in [0, 1]."""
    rows = [torch.from_numpy(picture(k)).permute(2, 0, 1) / 255 for k in range(n)]
    return torch.stack(rows)


class Components:
    """The page's components, each its own name."""

    def __getattr__(self, name: str) -> str:
        return name


def shown(bench, stimulus, generator="theirs", **choices):
    """Return the finished pictures of a trial, in the order of its scales."""
    request = default_request(
        bench.catalogue, "fake", "sub-01", stimulus=stimulus, generator=generator, **choices
    )
    return [frame.image for frame in reconstruct(bench, request) if frame.done]


def order_shown(bench, stimuli=APPEARANCE):
    """Return which result is shown for each stimulus."""
    return [number(shown(bench, stimulus)[0]) for stimulus in stimuli]


def resized(fakes, stimuli, side=57):
    """Return all_images.pt: the shown images at another size, by another way of resizing."""
    images = [Image.fromarray(fakes.picture(stimulus)) for stimulus in stimuli]
    large = [np.asarray(i.resize((side, side), Image.Resampling.BICUBIC)) for i in images]
    return torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2) / 255


def write(folder, names, **kind):
    """Write result k under the k-th name."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        Image.fromarray(picture(k, **kind)).save(folder / name)
    return folder
