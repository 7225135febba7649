"""published: shows pictures that others made for a trial, as they lie on disk. No GPU, no brain.

Four layouts, with how the pictures are told apart (`backends.datasets.published` has the orders):

- a tensor ``.pt`` (N, 3, H, W) of floats in [0, 1], such as MindEye2's ``*_all_recons.pt``,
  ``*_all_enhancedrecons.pt`` and ``*_all_blurryrecons.pt``, or a ``.npy`` like it, also uint8 or
  with channels last;
- a folder of pictures named by stimulus id, by 73k number (0-based), or 0, 1, 2 ... with an order
  (Brain-Diffuser: ``results/versatile_diffusion/subj01/0.png``);
- such a folder, or a zip of one, with ``image_ids.csv``, which says what each file is of;
- ``{scale}/{strength}/{index}.png`` (NeuralDiffuser, src/recon.py: ``300000/0.2/00000.png``). Its
  files hold five samples side by side, and its scale is one of visual-feature guidance and far
  above any classifier-free scale, so it is chosen at the start and not on the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from backends.datasets.declared import FLAGS, declared, sentence
from backends.datasets.picture_files import PictureFile, is_zip, listed_ids, pictures_in
from backends.datasets.published import (
    ARRAYS,
    check_range,
    check_truth,
    fingerprint,
    is_array,
    open_array,
    row,
    stimuli_in_order,
    strangers,
    to_bytes,
)
from backends.generators.picture_names import (
    by_ids,
    listed,
    named,
    number,
    numbered,
    numbered_folders,
    some,
)
from explorer.protocols import Condition, Dataset, Option, Step
from explorer.request import MAX_SCALE, MAX_SCALES
from explorer.types import UserError

TRUTH = "_gt"  # ends the name of a copy of what was shown (DynaDiff: 0.png, 0_gt.png)
Reads = dict[str, Callable[[int], np.ndarray]]  # stimulus -> its picture, given which sample


class Published:
    """The published pictures of one subject's test images.

    Parameters
    ----------
    path
        A file or folder as above.
    name
        What the page calls it.
    study, subject
        Whose test images the pictures are of.
    order, sessions
        How numbered pictures are ordered, see `backends.datasets.published.stimuli_in_order`.
    scale, strength
        Which folders to show of ``{scale}/{strength}``; without ``scale`` all of them, as a sweep.
    samples
        How many pictures one file holds side by side.
    first
        The number of the first picture in the order, 0 or 1; it must be said of numbered pictures
        that have no 0 among them.
    target_caption, target_features, retrieval, best_of, tuned_on_test
        What its makers declare, see `backends.datasets.declared`; it stands under each picture.

    Attributes
    ----------
    scales
        The guidance scales the pictures were made with; () where there is but one picture.
    problems
        What was left out, one sentence each.
    """

    accepts = ()
    provenance = "published"
    guided = False
    needs = ("stimulus",)
    options: tuple[Option, ...] = ()
    default_steps = 1
    scales: tuple[float, ...] = ()

    def __init__(
        self,
        path: Path,
        name: str,
        study: Dataset,
        subject: str,
        *,
        order: str = "",
        sessions: str = "",
        scale: str = "",
        strength: str = "",
        samples: str = "",
        first: str = "",
        target_caption: str = "",
        target_features: str = "",
        retrieval: str = "",
        best_of: str = "",
        tuned_on_test: str = "",
    ) -> None:
        self.path, self.name = Path(path), name
        said = (target_caption, target_features, retrieval, best_of, tuned_on_test)
        self.declared = declared(self.path, dict(zip(FLAGS, said, strict=True)))
        self.dataset, self.subject = study.name, subject
        self.problems: list[str] = []
        self._order = order, sessions
        if first not in ("", "0", "1") or (first and not order):
            raise UserError(
                f"{name}: first is the number of the first picture in an order, 0 or 1, found "
                f"{first!r}{'' if order else ' without an order'}."
            )
        self._first = first
        if is_array(self.path):
            for option, value in (
                *(("scale", scale), ("strength", strength), ("samples", samples)),
                ("first", first),
            ):
                if value:
                    raise UserError(f"{name}: {option} is for folders, {path} is a file.")
            self._read = {0.0: self._of_array(study)}
        else:
            self._read = self._of_folder(study, scale, strength, samples)
        if len(self._read) > 1:
            self.guided, self.scales = True, tuple(self._read)
        self.fingerprint = fingerprint(self.path)

    @classmethod
    def recognise(cls, path: Path) -> bool:
        """Return whether a path holds pictures: images in folders, or an array of images."""
        if path.is_dir():
            return bool(pictures_in(path) or numbered_folders(path))
        if is_zip(path):
            return True
        if not is_array(path):
            return False
        try:
            return _is_images(tuple(open_array(path).shape))
        except UserError:
            return False

    # ------------------------------------------------------------------------------- what is there

    @property
    def readers(self) -> dict[float, Reads]:
        """Scale (0 for pictures without one) -> stimulus -> its picture, given which sample."""
        return self._read

    def _of_array(self, study: Dataset) -> Reads:
        stored = open_array(self.path)
        if not _is_images(tuple(stored.shape)):
            raise UserError(
                f"{self.path} has shape {tuple(stored.shape)}, expected pictures (N, 3, H, W)."
            )
        check_range(stored, str(self.path))
        stimuli = stimuli_in_order(self.path, len(stored), study, self.subject, *self._order)
        shown = study.load(self.subject).stimuli("test")
        self.problems += strangers(stimuli, shown, self.name)
        return {s: partial(_row, stored, i, self.path) for i, s in enumerate(stimuli)}

    def _of_folder(
        self, study: Dataset, scale: str, strength: str, samples: str
    ) -> dict[float, Reads]:
        if not is_zip(self.path) and not pictures_in(self.path):
            folders = self._chosen_folders(scale, strength)
        elif scale or strength:
            raise UserError(
                f"{self.name}: {self.path} holds pictures and no folders by scale and strength; "
                "leave those options out."
            )
        else:
            folders = {0.0: self.path}
        files = {at: self._by_stimulus(folder, study) for at, folder in folders.items()}
        count = self._samples(next(iter(next(iter(files.values()))[0].values())), samples)
        return {
            at: {
                stimulus: partial(
                    _part, file, count, partial(self._hold, study, stimulus, truths.get(stimulus))
                )
                for stimulus, file in found.items()
            }
            for at, (found, truths) in files.items()
        }

    def _hold(self, study: Dataset, stimulus: str, truth: PictureFile | None) -> None:
        """Refuse a picture whose own copy of what was shown is not the shown image."""
        if truth is not None:
            pair = {str(truth): (stimulus, truth.read())}
            check_truth(pair, study, self._order[0] or "of its names")

    def _chosen_folders(self, scale: str, strength: str) -> dict[float, Path]:
        """Return scale -> folder of pictures under ``{scale}/{strength}``."""
        there = numbered_folders(self.path)
        if not there:
            lying = [p.name for p in sorted(self.path.glob("*")) if p.suffix.lower() in ARRAYS]
            raise UserError(
                f"{self.path} holds no pictures, neither by themselves nor under scale/strength; "
                + (f"give one of its files: {', '.join(lying)}." if lying else "check the path.")
            )
        if scale:
            at = number(scale, "scale")
            if at not in there:
                raise UserError(
                    f"{self.path} has no scale {scale}; choose one of {listed(there)}."
                )
            there = {at: there[at]}
        elif len(there) > 1 and (max(there) > MAX_SCALE or len(there) > MAX_SCALES):
            raise UserError(
                f"{self.path} has the scales {listed(there)}, which are more or larger than a "
                f"page's guidance scales (up to {MAX_SCALES}, from 0 to {MAX_SCALE:g}); choose "
                "one with ?scale=."
            )
        strengths = sorted({at for inner in there.values() for at in inner})
        if not strength and len(strengths) > 1:
            raise UserError(
                f"{self.path} has the strengths {listed(strengths)}; choose one with ?strength=."
            )
        wanted = number(strength, "strength") if strength else strengths[0]
        found = {at: inner[wanted] for at, inner in there.items() if wanted in inner}
        if not found:
            raise UserError(
                f"{self.path} has no strength {strength}; choose one of {listed(strengths)}."
            )
        lost = sorted(set(there) - set(found))
        if lost:
            self.problems.append(
                f"{self.name} leaves out the scale(s) {listed(lost)}, which were not made with "
                f"strength {wanted:g}."
            )
        return dict(sorted(found.items()))

    def _by_stimulus(
        self, folder: Path, study: Dataset
    ) -> tuple[dict[str, PictureFile], dict[str, PictureFile]]:
        """Return stimulus -> its picture, and its copy of what was shown where there is one."""
        files = pictures_in(folder)
        truths = {f.stem.removesuffix(TRUTH): f for f in files if f.stem.endswith(TRUTH)}
        files = [file for file in files if not file.stem.endswith(TRUTH)]
        if not files:
            raise UserError(f"{folder} holds no pictures but copies of what was shown.")
        shown, who = study.load(self.subject).stimuli("test"), f"{study.name}/{self.subject}"
        ids = listed_ids(folder)
        if self._order[0]:
            whose = study, self.subject
            found, truth_of = numbered(folder, files, whose, self._order, self._first, truths)
        elif ids is not None:
            found, truth_of = by_ids(folder, files, ids, shown, who, truths)
        else:
            found, truth_of = named(folder, files, shown, who, truths)
        check_truth(
            {f"{file}": (stimulus, file.read()) for stimulus, file in some(truth_of).items()},
            study,
            self._order[0] or ("of its list" if ids else "of its names"),
            list(found),
        )
        found = {stimulus: file for stimulus, file in found.items() if stimulus in set(shown)}
        if not found:
            raise UserError(
                f"No picture in {folder} is of a test image of {who}; choose another order, or "
                "the data set and subject that they are of."
            )
        if len(found) < len(files):
            odd = next(file.name for file in files if file not in found.values())
            self.problems.append(
                f"{self.name} leaves out {len(files) - len(found)} of {len(files)} pictures "
                f"that are named like no test image of {who} (first {odd})."
            )
        return found, truth_of

    def _samples(self, file: PictureFile, samples: str) -> int:
        """Return how many pictures lie side by side in a file, and make that a choice."""
        width, height = file.size()
        if not samples and width % height == 0 and width > height:
            raise UserError(
                f"{file} is {width // height} times as wide as high; say ?samples="
                f"{width // height} if it holds that many pictures side by side (NeuralDiffuser: "
                "5), else ?samples=1."
            )
        if samples and (not samples.isdecimal() or not int(samples) or width % int(samples)):
            raise UserError(
                f"samples is how many pictures of equal width lie side by side in a file, found "
                f"{samples!r} for a width of {width} pixels."
            )
        count = int(samples or 1)
        if count > 1:
            sentence = f"Which of the {count} published samples is shown."
            self.options = (Option("sample", 1, count, 1, sentence, whole=True),)
        return count

    # -------------------------------------------------------------------------------- showing them

    def sweep(
        self,
        condition: Condition,
        scales: Sequence[float],
        steps: int,
        seed: int,
        sample: float = 1,
    ) -> Iterator[Step]:
        """Yield the published picture of each scale; one that was not made is refused."""
        other = [scale for scale in scales if self.scales and scale not in self.scales]
        if other:
            raise UserError(
                f"{self.name} was made at the guidance scales {listed(self.scales)}, not at "
                f"{listed(other)}; nothing is shown in their place, so choose among those."
            )
        for index, scale in enumerate(scales):
            image = self._picture(condition, scale, sample)
            note = sentence(self.declared)
            yield Step(index, float(scale), steps, steps, image, done=True, note=note)

    def generate(
        self,
        conditions: Sequence[Condition],
        scale: float,
        seeds: Sequence[int],
        steps: int,
        sample: float = 1,
    ) -> np.ndarray:
        """Return uint8 (n, H, W, 3), the published picture of each condition's stimulus."""
        sweeps = [self.sweep(condition, [scale], steps, 0, sample) for condition in conditions]
        return np.stack([next(sweep).image for sweep in sweeps])

    def _picture(self, condition: Condition, scale: float, sample: float) -> np.ndarray:
        who = condition.subject
        if who is None or (who.dataset, who.name) != (self.dataset, self.subject):
            found = f"{who.dataset}/{who.name}" if who else "no subject"
            raise UserError(
                f"{self.name} was published for {self.dataset}/{self.subject}, not for {found}; "
                "choose that subject."
            )
        if sample != int(sample):
            raise UserError(f"sample is a whole number, found {sample:g}.")
        pictures = self._read[scale if self.scales else next(iter(self._read))]
        read = pictures.get(condition.stimulus or "")
        if read is None:
            raise UserError(
                f"{self.name} has no picture for {condition.stimulus}; only part of the test "
                "images was published, choose another trial."
            )
        return read(int(sample))


def _is_images(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and 3 in (shape[1], shape[3]) and min(shape) > 0


def _row(stored: Any, index: int, path: Path, sample: int) -> np.ndarray:
    """Return uint8 (H, W, 3): a picture of an array, which has one sample a trial."""
    return to_bytes(row(stored, index), f"{path}, picture {index} (from 0)")


def _part(file: PictureFile, count: int, hold: Callable[[], None], sample: int) -> np.ndarray:
    """Return uint8 (H, W, 3): the ``sample``-th (from 1) of ``count`` pictures side by side."""
    hold()
    if count == 1:
        return file.read()
    pixels = file.read(largest=None)  # a strip is not reduced before it is cut
    width = pixels.shape[1] // count
    return np.ascontiguousarray(pixels[:, (sample - 1) * width : sample * width])
