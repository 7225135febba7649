"""What a person chose: the request that decides the pictures, the view that decides the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from explorer.files import short
from explorer.types import UserError

MAX_SCALES = 16
MAX_SCALE = 30.0
MAX_STEPS = 100
MAX_SAMPLES = 16
MAX_ROWS = 8
SEED = "seed"  # the second axis that every generator has which draws from noise


@dataclass(frozen=True)
class Request:
    """Everything that decides the pictures; with the checkpoints' hashes it is the cache key.

    ``repeats`` () averages all repeats of the stimulus, (0,) is the first alone. ``samples``
    above 1: beside the sweep, that many samples from the mapper's density are drawn as pictures.
    ``space`` names the target that is decoded, for mappers with several; "" is the first that the
    generator draws from. ``axis``: what a sweep varies besides the scale, `SEED` or an option of
    the generator, and ``values`` its value in each row; "" for a single row. ``rois``: keys of the
    parcels of ``roi_atlas`` ("" the subject's first) whose betas guide, () all voxels.
    """

    dataset: str
    subject: str
    stimulus: str
    mapper: str
    generator: str
    scales: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0, 8.0)
    steps: int = 20
    seed: int = 0
    repeats: tuple[int, ...] = ()
    options: tuple[tuple[str, float], ...] = ()
    samples: int = 1
    space: str = ""
    axis: str = ""
    values: tuple[float, ...] = ()
    rois: tuple[str, ...] = ()
    roi_atlas: str = ""

    def __post_init__(self) -> None:
        """Refuse scales, steps, seeds, samples and rows outside what a sweep can do."""
        object.__setattr__(self, "scales", tuple(float(s) for s in self.scales))
        object.__setattr__(self, "repeats", tuple(int(r) for r in self.repeats))
        object.__setattr__(self, "options", tuple((str(k), float(v)) for k, v in self.options))
        object.__setattr__(self, "values", tuple(float(v) for v in self.values))
        object.__setattr__(self, "rois", tuple(dict.fromkeys(map(str, self.rois))))
        if not 1 <= len(self.scales) <= MAX_SCALES:
            raise UserError(f"Give 1 to {MAX_SCALES} guidance scales, found {len(self.scales)}.")
        for scale in self.scales:
            if not (np.isfinite(scale) and 0 <= scale <= MAX_SCALE):
                raise UserError(
                    f"A guidance scale lies between 0 and {MAX_SCALE:g}, found {scale:g}."
                )
        if len(set(self.scales)) != len(self.scales):
            raise UserError("Each guidance scale may be given once; remove the repeated one.")
        if not 1 <= self.steps <= MAX_STEPS:
            raise UserError(
                f"The number of steps lies between 1 and {MAX_STEPS}, found {self.steps}."
            )
        if not 0 <= self.seed < 2**31:
            raise UserError(f"The seed lies between 0 and {2**31 - 1}, found {self.seed}.")
        if not 1 <= self.samples <= MAX_SAMPLES:
            raise UserError(
                f"The number of samples lies between 1 and {MAX_SAMPLES}, found {self.samples}."
            )
        if self.axis:
            self._check_rows()
        elif self.values:
            raise UserError(
                f"{len(self.values)} values are given and nothing that they are of; choose what "
                "varies from row to row."
            )

    def _check_rows(self) -> None:
        if not 1 <= len(self.values) <= MAX_ROWS:
            raise UserError(
                f"Give 1 to {MAX_ROWS} values of {self.axis}, a row each; found "
                f"{len(self.values)}."
            )
        if len(set(self.values)) != len(self.values):
            raise UserError(f"Each value of {self.axis} may be given once; remove the repeated.")
        for value in self.values if self.axis == SEED else ():
            if not (0 <= value < 2**31 and value == int(value)):
                raise UserError(
                    f"A seed is a whole number between 0 and {2**31 - 1}, found {value:g}."
                )

    def rows(self) -> tuple[Request, ...]:
        """Return a request without a second axis for each of its values; itself without one."""
        if not self.axis:
            return (self,)
        plain = replace(self, axis="", values=())
        if self.axis == SEED:
            return tuple(replace(plain, seed=int(value)) for value in self.values)
        others = tuple(option for option in self.options if option[0] != self.axis)
        return tuple(replace(plain, options=(*others, (self.axis, v))) for v in self.values)


IMPORTANCE, PARCELS = "importance", "parcels"  # what a view shows beside a subject's own maps
METHODS = ("gradient", "gradient x input", "integrated gradients")
LIKELIHOOD = "log-likelihood"
TARGETS = ("retrieval margin", "fixed direction", LIKELIHOOD)  # the last: of mappers that have one
MEASURES = ("enrichment", "share", "mean", "signed")
ATTENTIONS = ("off", "occlusion")  # over the shown image; the second is the method
SURFACES = ("inflated", "pial", "flat")
NATIVE = ("native inflated", "native pial")  # the subject's own surface
SLICES, GLASS = ("axial", "coronal", "sagittal"), "glass"  # pictures of a volume
PICTURED = (*SLICES, GLASS)
HEMISPHERES = ("both", "left", "right")
CAMERAS = ("lateral", "medial", "ventral", "dorsal", "anterior", "posterior")
# Names of colour maps for values of one sign and of both; the first is the default.
SEQUENTIAL, DIVERGING = ("YlOrRd", "viridis", "cividis"), ("RdBu", "PuOr", "vik")
PANELS = (
    *("", "controls", "lesion", "compare", "curve", "drivers", "steps", "statistics"),
    *("evaluation", "critique", "own", "identity", "sheet"),
)
PEOPLE = ("subject", "group")  # whose map over all test images the statistics are of
MOST_GAIN = 2.0
LECTURE_STEPS = 5


@dataclass(frozen=True)
class View:
    """Everything that decides only how the pictures' evidence is shown."""

    method: str = "gradient"
    target: str = "retrieval margin"
    atlas: str = ""  # "" is the first one the voxel space has
    measure: str = "enrichment"
    surface: str = "inflated"
    hemisphere: str = "both"
    camera: str = "posterior"
    parcel: str = ""  # Label.key of the selected parcel
    shows: str = IMPORTANCE  # or a map of the subject's voxels, or the parcels themselves
    attention: str = "off"  # whether the shown image is overlaid with what the decoding rests on
    panel: str = ""  # which evidence is open, "" for none
    parcels: tuple[str, ...] = ()  # Label.key of the parcels that are lesioned, () for the first
    gain: float = 0.0  # of the lesioned parcels: 0 replaces their betas, 1 changes nothing
    fill: str = "training mean"  # what replaces them, see `explorer.evidence.lesions`
    donor: str = ""  # the test stimulus whose betas do, "" for one that the seed chooses
    against: str = ""  # what a trial is compared with: mapper:NAME, generator:NAME or subject:NAME
    people: str = "subject"
    lecture: int = 0  # the step of the walkthrough that is open, from 1; 0 for none
    category: str = ""  # whose trials the gallery offers, "" for all
    threshold: float = 0.0  # values nearer to zero than this are not coloured
    sequential: str = SEQUENTIAL[0]  # the colour map of values of one sign
    diverging: str = DIVERGING[0]  # and of both
    outlines: str = ""  # the atlas whose outlines lie over the map, "" for none

    def __post_init__(self) -> None:
        """Refuse a choice that is not on offer."""
        object.__setattr__(self, "parcels", tuple(dict.fromkeys(map(str, self.parcels))))
        object.__setattr__(self, "gain", float(self.gain))
        object.__setattr__(self, "threshold", _threshold(self.threshold))
        offers = {
            "method": METHODS,
            "measure": MEASURES,
            "surface": (*SURFACES, *NATIVE, *PICTURED),
        }
        offers |= {"hemisphere": HEMISPHERES, "camera": CAMERAS, "target": TARGETS}
        offers |= {"attention": ATTENTIONS, "panel": PANELS, "people": PEOPLE}
        offers |= {"sequential": SEQUENTIAL, "diverging": DIVERGING}
        offers["lecture"] = tuple(range(LECTURE_STEPS + 1))
        for name, offered in offers.items():
            if getattr(self, name) not in offered:
                names = ", ".join(str(one) for one in offered if one != "")
                raise UserError(
                    f"{name} is one of {names}, found {short(repr(getattr(self, name)))}."
                )
        if not 0 <= self.gain <= MOST_GAIN:
            raise UserError(
                f"The gain of a parcel lies between 0 and {MOST_GAIN:g}, found {self.gain:g}."
            )


def _threshold(value: float | str) -> float:
    """Return a threshold as a number from 0."""
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not 0 <= number < float("inf"):
        raise UserError(f"The threshold is a number from 0, found {short(repr(value))}.")
    return number
