"""pocket-judge: names what a picture shows. It only evaluates; nothing else is trained with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.embedders.pocket import to_tensor
from backends.simulation.scenes import CATEGORIES, SETTINGS

if TYPE_CHECKING:
    import pandas as pd
    import torch

ROWS_AT_ONCE = 64


def judge_network(width: int = 32) -> torch.nn.Module:
    """Return an untrained classifier: pixels (n, 3, 128, 128) to (n, 24 + 8) logits."""
    from torch import nn

    def block(before: int, after: int, stride: int = 1) -> list[nn.Module]:
        convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]

    w = width
    return nn.Sequential(
        nn.PixelUnshuffle(2),  # (n, 12, 64, 64): the first layer at full size would cost the most
        *block(12, w),
        *block(w, 2 * w, stride=2),
        *block(2 * w, 2 * w),
        *block(2 * w, 3 * w, stride=2),
        *block(3 * w, 3 * w),
        *block(3 * w, 4 * w, stride=2),
        *block(4 * w, 4 * w),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(16 * w, len(CATEGORIES) + len(SETTINGS)),
    )


class PocketJudge:
    """The trained classifier: category, its super-category, and setting of a picture."""

    def __init__(self, checkpoints: Path, device: str = "cpu") -> None:
        """Load ``pocket-judge`` from the checkpoints' folder; damaged files raise `UserError`."""
        from explorer.files import guard
        from explorer.mapper import read_card, read_weights

        folder = Path(checkpoints) / "pocket-judge"
        with guard(folder / "card.json", "the card of a judge"):
            network = judge_network(**read_card(folder).settings["architecture"])
        network.load_state_dict(read_weights(folder, network.state_dict()))
        self.network = network.to(device).eval().requires_grad_(False)
        self.device = device

    def classify(self, images: Sequence[np.ndarray]) -> pd.DataFrame:
        """Return one row an image: ``category``, ``supercategory`` and ``setting`` by name.

        The super-category is the one whose four categories have the largest summed probability.
        """
        import pandas as pd
        import torch

        with torch.inference_mode():
            logits = torch.cat(
                [
                    self.network(to_tensor(images[i : i + ROWS_AT_ONCE], 128).to(self.device))
                    for i in range(0, len(images), ROWS_AT_ONCE)
                ]
            )
        return pd.DataFrame(names(logits.cpu().numpy()))


def names(logits: np.ndarray) -> dict[str, list[str]]:
    """Return the three names per row for logits (n, 24 + 8), categories first."""
    categories = list(CATEGORIES)
    supers = sorted(set(CATEGORIES.values()))
    chances = np.exp(logits[:, : len(categories)])
    member = np.array([[CATEGORIES[c] == s for s in supers] for c in categories], float)
    return {
        "category": [categories[i] for i in chances.argmax(axis=1)],
        "supercategory": [supers[i] for i in (chances @ member).argmax(axis=1)],
        "setting": [SETTINGS[i] for i in logits[:, len(categories) :].argmax(axis=1)],
    }
