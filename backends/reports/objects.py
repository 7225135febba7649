"""Objects and captions: whether a picture shows the things that were shown, and says the same.

The definitions of SEED (Park et al. 2026, arXiv 2503.06437; Concarne2/SEED, seed/metrics.py) with
any detector, captioner and sentence embedder of transformers, given by folder. SEED's own are
MM-Grounding-DINO-L, GIT-large (COCO) and all-MiniLM-L6-v2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.embedders.files import MISFITS_TOLD, check_config, refuse_random
from backends.reports.likeness import Pictures
from explorer.files import read_object, reason
from explorer.metrics import unit
from explorer.types import UserError

if TYPE_CHECKING:
    import torch

# Scores from which a detection counts, and the area below which none does, in pixels.
THRESHOLDS = np.arange(0.05, 0.95, 0.05)
SMALLEST = 50
MOST = 300  # detections of a picture that are looked at (MM-Grounding-DINO's max_per_img)
WORDS = 50  # pieces of words of a caption
AT_ONCE = 8  # pictures
GROUNDED = ("grounding-dino", "mm-grounding-dino")
BESIDES_COCO = ("man", "woman")  # SEED's 82 categories are COCO's 80 and these


def object_f1(shown: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Return (n,): the F1 of the categories found in a picture and in what was shown, 0 to 1.

    Recall is the share of the shown categories that are found in the picture, as a mean over the
    thresholds at which anything is found in what was shown; precision the other way round. Where
    nothing is found at any threshold it is 1. Their harmonic mean; 0 where both are 0.

    Parameters
    ----------
    shown, made
        bool (n, thresholds, categories): whether one is found with at least that score.
    """
    both = (shown & made).sum(axis=2)

    def share(of: np.ndarray) -> np.ndarray:
        there = of.sum(axis=2)
        known = (there > 0).sum(axis=1)
        shares = both / np.maximum(there, 1)
        return np.where(known > 0, shares.sum(axis=1) / np.maximum(known, 1), 1.0)

    recall, precision = share(shown), share(made)
    total = recall + precision
    return np.where(total > 0, 2 * recall * precision / np.where(total > 0, total, 1), 0.0)


def object_overlap(shown: Pictures, made: Pictures) -> np.ndarray:
    """Object F1 of the feature "objects", see `object_f1` and `Detector`."""
    found = (p.feature("objects").reshape(len(p), len(THRESHOLDS), -1) > 0 for p in (shown, made))
    return object_f1(*found)


def caption_similarity(shown: Pictures, made: Pictures) -> np.ndarray:
    """Cosine of the feature "captions" of a picture and of what was shown, see `Captions`."""
    return (unit(shown.feature("captions")) * unit(made.feature("captions"))).sum(axis=1)


# ------------------------------------------------------------------------------ models by folder


class Detector:
    """A detector of objects, from a folder as transformers saves one.

    A closed set of categories is the model's own (DETR and its kin). Grounding DINO and
    MM-Grounding-DINO look for SEED's 82: COCO's 80, man and woman; a category's score is the mean
    over its pieces of words, as MMDetection takes it.

    Calling it with n images uint8 (H, W, 3) gives float32 (n, thresholds x categories), 1 where a
    category is found with at least that score on 50 pixels or more.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        from transformers import (
            AutoImageProcessor,
            AutoModelForObjectDetection,
            AutoModelForZeroShotObjectDetection,
            AutoProcessor,
        )

        self.device, self.folder = device, folder
        kind = str(_config(folder, "--detector").get("model_type", ""))
        self.grounded = kind in GROUNDED
        auto = (
            AutoModelForZeroShotObjectDetection if self.grounded else AutoModelForObjectDetection
        )
        processor = AutoProcessor if self.grounded else AutoImageProcessor
        self.model = _opened(auto, folder, "--detector", device)
        self.processor = _read(processor, folder, "--detector")
        if self.grounded:
            self.categories = _seed_categories()
        else:
            self.categories = [
                self.model.config.id2label[i] for i in sorted(self.model.config.id2label)
            ]
        self.variant = f"{kind} of {folder.name}, {len(self.categories)} categories"

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return which categories are found at which scores, see the class."""
        rows = []
        for image in images:
            scores, labels, boxes = self.detect(image)
            found = np.zeros((len(THRESHOLDS), len(self.categories)), np.float32)
            large = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) >= SMALLEST
            for score, label in zip(scores[large], labels[large], strict=True):
                found[score >= THRESHOLDS, label] = 1
            rows.append(found.ravel())
        return np.stack(rows)

    def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return scores (m,), labels int (m,) and boxes (m, 4): x0, y0, x1, y1 in pixels."""
        import torch
        from PIL import Image

        picture, height_width = Image.fromarray(image), image.shape[:2]
        with torch.inference_mode():
            if self.grounded:
                return self._ground(picture, height_width)
            given = self.processor(images=picture, return_tensors="pt").to(self.device)
            found = self.processor.post_process_object_detection(
                self.model(**given), threshold=float(THRESHOLDS[0]), target_sizes=[height_width]
            )[0]
        return tuple(found[key].cpu().numpy() for key in ("scores", "labels", "boxes"))

    def _ground(
        self, picture: Any, height_width: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what a grounding model finds of the categories, the best `MOST`."""
        text = " ".join(f"{name}." for name in self.categories)
        given = self.processor(images=picture, text=text, return_tensors="pt").to(self.device)
        outputs = self.model(**given)
        pieces = self.processor.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        by_piece = outputs.logits[0].sigmoid()
        begin, columns = 0, []
        for name in self.categories:
            end = begin + len(name)
            of = [k for k, (a, b) in enumerate(pieces) if a < end and b > begin and b > a]
            columns.append(by_piece[:, of].mean(dim=1))
            begin = end + 2
        table = np.stack([column.cpu().numpy() for column in columns], axis=1)
        best = np.argsort(-table, axis=None, kind="stable")[:MOST]
        query, label = np.unravel_index(best, table.shape)
        middle, size = np.split(outputs.pred_boxes[0].cpu().numpy()[query], 2, axis=1)
        corners = np.concatenate([middle - size / 2, middle + size / 2], axis=1)
        return table[query, label], label, corners * np.tile(height_width[::-1], 2)


def _seed_categories() -> list[str]:
    """Return COCO's 80 categories, by torchvision's names, with man and woman."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    names = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    coco = [name for name in names if name not in ("__background__", "N/A")]
    return [coco[0], *BESIDES_COCO, *coco[1:]]


class Captions:
    """A captioner and a sentence embedder, from folders as transformers saves them.

    Calling it with n images gives the embeddings float32 (n, D) of their captions, of unit length:
    the mean over pieces of words, or the first one where ``1_Pooling/config.json`` says so.
    """

    def __init__(self, captioner: Path, sentences: Path, device: str = "cpu") -> None:
        from transformers import (
            AutoModel,
            AutoModelForImageTextToText,
            AutoProcessor,
            AutoTokenizer,
        )

        self.device = device
        kind = _config(captioner, "--captioner").get("model_type", "")
        _config(sentences, "--sentences")
        self.captioner = _opened(AutoModelForImageTextToText, captioner, "--captioner", device)
        self.processor = _read(AutoProcessor, captioner, "--captioner")
        self.embedder = _opened(AutoModel, sentences, "--sentences", device, unused=("pooler.",))
        self.tokenizer = _read(AutoTokenizer, sentences, "--sentences")
        pooling = sentences / "1_Pooling" / "config.json"
        how = read_object(pooling) if pooling.is_file() else {}
        self.first = bool(how.get("pooling_mode_cls_token")) and not how.get(
            "pooling_mode_mean_tokens"
        )
        self.variant = f"{kind} of {captioner.name}, sentences by {sentences.name}"

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return the embeddings of what is said of pictures."""
        return self.embed(self.describe(images))

    def describe(self, images: Sequence[np.ndarray]) -> list[str]:
        """Return one caption a picture: the likeliest word after word."""
        import torch
        from PIL import Image

        said: list[str] = []
        for begin in range(0, len(images), AT_ONCE):
            pictures = [Image.fromarray(one) for one in images[begin : begin + AT_ONCE]]
            pixels = self.processor(images=pictures, return_tensors="pt").pixel_values
            with torch.inference_mode():
                ids = self.captioner.generate(
                    pixel_values=pixels.to(self.device), max_new_tokens=WORDS, do_sample=False
                )
            said += self.processor.batch_decode(ids, skip_special_tokens=True)
        return [one.strip() for one in said]

    def embed(self, sentences: Sequence[str]) -> np.ndarray:
        """Return float32 (n, D) of unit length."""
        import torch

        rows = []
        for begin in range(0, len(sentences), 4 * AT_ONCE):
            part = list(sentences[begin : begin + 4 * AT_ONCE])
            given = self.tokenizer(part, padding=True, truncation=True, return_tensors="pt")
            given = given.to(self.device)
            with torch.inference_mode():
                states = self.embedder(**given).last_hidden_state
            there = given["attention_mask"][..., None].float()
            pooled = states[:, 0] if self.first else (states * there).sum(1) / there.sum(1)
            rows.append(pooled.float().cpu().numpy())
        return unit(np.concatenate(rows)).astype(np.float32)


def _config(folder: Path, option: str) -> dict[str, Any]:
    """Return the configuration in a folder of a model; anything else is refused."""
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{option} {folder} has no config.json; give a folder as transformers saves a model, "
            "with model.safetensors and what prepares its input."
        )
    return read_object(folder / "config.json")


def _opened(
    auto: Any, folder: Path, option: str, device: str, unused: tuple[str, ...] = ()
) -> torch.nn.Module:
    """Return a model with the weights in a folder; what is random or does not fit is refused."""

    def load() -> torch.nn.Module:
        check_config(_config(folder, option))
        model, told = auto.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, **MISFITS_TOLD
        )
        told["missing_keys"] = {k for k in told["missing_keys"] if not k.startswith(unused)}
        refuse_random(told)
        return model.to(device).float().eval().requires_grad_(False)

    return _tried(load, folder, option)


def _read(auto: Any, folder: Path, option: str) -> Any:
    return _tried(lambda: auto.from_pretrained(folder, local_files_only=True), folder, option)


def _tried(read: Callable[[], Any], folder: Path, option: str) -> Any:
    try:
        return read()
    except UserError:
        raise
    except Exception as error:  # transformers has an error of its own for each kind of misfit
        raise UserError(
            f"{option} {folder} cannot be used ({type(error).__name__}: {reason(error)}); give a "
            "folder as transformers saves such a model, with model.safetensors."
        ) from error
