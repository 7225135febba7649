"""Captions for pictures that have none, by GIT, and the table in which they are kept.

GIT (Wang et al. 2022, arXiv 2205.14100) wrote the captions of "Semantic alignment of BOLD5000 with
CLIP" and of MindEye2.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from backends.embedders.files import MISFITS_TOLD, check_network, numbers_in, refuse_random
from backends.embedders.published import AT_ONCE, Pretrained
from backends.training.counted import count
from backends.training.plan import in_chunks
from explorer.files import short
from explorer.types import UserError
from explorer.writing import quoted, unquoted

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("stimulus", "caption")
WORD_PIECES = 40  # at most in a caption; those of COCO have about 12 words
SAVE_EVERY = 128  # pictures, so that an interrupted run loses little


class Captioned(Protocol):
    """Pictures that may have captions: a data set, or a folder of further pictures."""

    stimuli: pd.DataFrame

    def image(self, stimulus: str) -> np.ndarray:
        """Return a picture, uint8 RGB (H, W, 3)."""
        ...


class Captioner(Pretrained):
    """GIT, fine-tuned on COCO's captions: the likeliest word after word, so always the same."""

    name, kind, option = "git", "captioners", "--model "
    hub, size = "microsoft/git-base-coco", "707 MB"
    files = (
        *("config.json", "model.safetensors", "preprocessor_config.json"),
        *("tokenizer_config.json", "vocab.txt"),
    )

    def _load(self, folder: Path) -> None:
        from transformers import AutoProcessor, GitConfig, GitForCausalLM

        config = GitConfig.from_pretrained(folder)
        check_network(lambda: GitForCausalLM(config), numbers_in(folder / self.files[1]))
        model, found = GitForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, **MISFITS_TOLD
        )
        refuse_random(found)
        self.processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        self.model = model.to(self.device).float().eval().requires_grad_(False)

    def describe(self, images: Sequence[np.ndarray]) -> list[str]:
        """Return one caption a picture uint8 (H, W, 3)."""
        import torch
        from PIL import Image

        captions: list[str] = []
        for piece in in_chunks(len(images), AT_ONCE):
            pictures = [Image.fromarray(image) for image in images[piece]]
            pixels = self.processor(images=pictures, return_tensors="pt").pixel_values
            with torch.inference_mode():
                ids = self.model.generate(
                    pixel_values=pixels.to(self.device),
                    max_new_tokens=WORD_PIECES,
                    do_sample=False,
                )
            said = self.processor.batch_decode(ids, skip_special_tokens=True)
            captions += [" ".join(caption.split()) for caption in said]
        return captions


def caption_stimuli(
    study: Captioned,
    captioner: Captioner,
    file: Path,
    progress: Callable[[str], None] | None = None,
) -> int:
    """Write captions of the stimuli that have none into ``file``; return how many were written.

    Those that the file holds already are kept, so that an interrupted run goes on.
    """
    done = read_captions(file) if file.exists() else {}
    own = study.stimuli["caption"].fillna("").astype(str).str.strip()
    lacking = [str(s) for s, caption in own.items() if not caption and not done.get(str(s))]
    for piece in in_chunks(len(lacking), SAVE_EVERY):
        block = lacking[piece]
        said = captioner.describe([study.image(stimulus) for stimulus in block])
        done |= dict(zip(block, said, strict=True))
        write_captions(file, done)
        if progress:
            progress(count("captions", piece.stop, len(lacking), "pictures", note=said[-1]))
    return len(lacking)


def write_captions(file: Path, captions: Mapping[str, str]) -> None:
    """Write stimulus -> caption as CSV with a header, whole or not at all."""
    part = file.with_name(f".{file.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(COLUMNS)
            rows.writerows((quoted(name), quoted(text)) for name, text in captions.items())
        os.replace(part, file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(
            f"{file} cannot be written ({error}); make room there, or name another file with "
            "--out."
        ) from error


def read_captions(file: str | Path) -> dict[str, str]:
    """Return stimulus -> caption of a CSV with these two columns; another file is refused."""
    file = Path(file).expanduser()
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream)
            if not set(COLUMNS) <= set(rows.fieldnames or ()):
                found = short(", ".join(rows.fieldnames or ())) or "nothing"
                raise UserError(
                    f"{file} needs the columns {' and '.join(COLUMNS)}, found {found}; python -m "
                    "backends caption --dataset NAME=PATH writes such a file."
                )
            pairs = [(unquoted(row["stimulus"]), unquoted(row["caption"] or "")) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{file} cannot be read as a table of captions ({error}); python -m backends caption "
            "--dataset NAME=PATH writes one."
        ) from error
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{file} has two captions of {twice!r}; leave one of them out.")
    return found
