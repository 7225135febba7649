"""A person of Algonauts 2023 in miniature: both hemispheres, pictures that name their images."""

from pathlib import Path

import numpy as np
from PIL import Image

VERTICES = 163_842
LEFT, RIGHT = (3, 40, 10_241, 10_242, 90_000), (0, 7, 150_000)  # vertices of fsaverage
TRAIN, TEST = (13, 4, 72_999, 20, 21, 22, 23, 24, 25, 26, 27, 28), (100, 101)  # of the 73k, from 0


def write_algonauts(root: Path, subject: str = "subj01", tested: bool = True) -> Path:
    """Write one person below ``root``; row i of a split holds the value of its image's number."""
    rng = np.random.default_rng(1)
    folder = root / subject
    for split, numbers in (("training", sorted(TRAIN)), ("test", TEST)):
        short = split.removesuffix("ing")
        pictures = folder / f"{split}_split" / f"{split}_images"
        pictures.mkdir(parents=True)
        for rank, number in enumerate(numbers, start=1):
            picture = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            picture[0, 0] = number % 251, number // 251 % 251, 7  # which image it is
            file = pictures / f"{short}-{rank:04d}_nsd-{number:05d}.png"
            Image.fromarray(picture).save(file)
        if split == "test" and not tested:
            continue
        place = folder / f"{split}_split" / f"{split}_fmri"
        place.mkdir()
        for side, count in (("lh", len(LEFT)), ("rh", len(RIGHT))):
            values = np.array(numbers, np.float32)[:, None] + rng.uniform(0, 0.1, count)
            values += 1000 * (side == "rh")
            np.save(place / f"{side}_{split}_fmri.npy", values.astype(np.float32))
    masks = folder / "roi_masks"
    masks.mkdir()
    for side, vertices in (("lh", LEFT), ("rh", RIGHT)):
        mask = np.zeros(VERTICES)
        mask[list(vertices)] = 1
        np.save(masks / f"{side}.all-vertices_fsaverage_space.npy", mask)
        numbers = np.arange(len(vertices)) % 4
        np.save(masks / f"{side}.floc-faces_challenge_space.npy", numbers)
    ceiling = folder / "test_split" / "noise_ceiling"
    ceiling.mkdir(parents=True, exist_ok=True)
    for side, vertices in (("lh", LEFT), ("rh", RIGHT)):
        values = np.linspace(0.1, 0.9, len(vertices)).astype(np.float32)
        np.save(ceiling / f"{side}_noise_ceiling.npy", values)
    return folder
