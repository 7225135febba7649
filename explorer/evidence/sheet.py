"""All test trials of a subject at once: what each scores, and which of its pictures are there.

`begin` loads no model: it reads what is finished. `ranked` decodes all trials, `with_chance`
measures what guessing gives, `draw` makes the pictures that are not there yet. Nothing is chosen:
a trial without a score stands last, whichever end is asked for first.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from explorer import metrics
from explorer.decoding import decoded_space, similarities, undecoded
from explorer.drawing import likeness, reconstruct, seconds_needed
from explorer.evidence import evaluation, standing
from explorer.finished import SIMILARITY, Decided, decided_pictures, looked_up, sampled_scale
from explorer.images import small_picture
from explorer.request import Request
from explorer.types import UserError

if TYPE_CHECKING:
    from explorer.workbench import Workbench

PICTURE, TRIAL = "picture", "trial"  # what a score is of: a picture at one scale, or a decoding
CHANCE_SAMPLE = 60  # finished pictures by which chance is measured (our choice: a second)
THUMBNAIL = 96  # pixels: about what one takes on the sheet
FAILURES = 3  # trials in a row that cannot be drawn, after which drawing ends
RANK = "rank"
PICTURE_SCORES = {
    "PixCorr": ("PixCorr", "Pearson correlation of the pixels with the shown image"),
    "SSIM": ("SSIM", "Structural similarity with the shown image"),
    SIMILARITY: (
        f"{SIMILARITY} similarity",
        f"Cosine of the {SIMILARITY} embeddings of the picture and the shown image",
    ),
}


@dataclass(frozen=True)
class Score:
    """What trials can be sorted by: its key, title and definition, and which end is ``better``.

    ``of``: `PICTURE` or `TRIAL`. ``chance``: what guessing gives, by scale for pictures and under
    None for trials; nothing where it is not known. ``chance_of``: how that was found.
    """

    key: str
    title: str
    sentence: str
    better: str = "higher"
    of: str = TRIAL
    chance: Mapping[float | None, float] = ()
    chance_of: str = ""

    def chance_at(self, scale: float) -> float:
        """Return what guessing gives at a scale, NaN where that is not known."""
        known = dict(self.chance)
        return known.get(scale if self.of == PICTURE else None, math.nan)


@dataclass(frozen=True)
class Tile:
    """One test trial: ``scores`` of its decoding, and of its pictures that are there, by scale.

    ``why``: why nothing can be drawn or shown of it, "" where it can.
    """

    stimulus: str
    number: int
    caption: str
    category: str
    why: str = ""
    scores: Mapping[str, float] = ()
    pictures: Mapping[float, Mapping[str, float]] = ()

    def value(self, score: Score, scale: float) -> float:
        """Return the tile's score, NaN where it has none."""
        own = dict(self.pictures).get(scale, ()) if score.of == PICTURE else self.scores
        return float(dict(own).get(score.key, math.nan))


@dataclass(frozen=True)
class Sheet:
    """All test trials of a subject, as one decoder and generator decode and draw them.

    ``request``: what they have in common, with the first trial's stimulus; ``scales``: those of
    its pictures, () without a generator, ``scale`` that which is shown first.
    """

    request: Request
    scales: tuple[float, ...]
    scale: float
    tiles: tuple[Tile, ...]
    scores: tuple[Score, ...]
    notes: tuple[str, ...] = ()

    def score(self, key: str) -> Score:
        """Return a score by its key; `UserError` for one that the sheet does not have."""
        for one in self.scores:
            if one.key == key:
                return one
        names = ", ".join(one.key for one in self.scores)
        raise UserError(f"The trials can be sorted by {names}; found {key!r}.")

    def lacking(self, scale: float) -> list[Tile]:
        """Return the tiles whose picture at a scale could be drawn and is not there."""
        there = scale in self.scales
        return [t for t in self.tiles if there and not t.why and scale not in dict(t.pictures)]


def shared(bench: Workbench, request: Request) -> Request:
    """Return what all trials have in common: one row, no samples, the first test stimulus."""
    first = bench.catalogue.gallery(request.dataset, request.subject).index[0]
    plain = replace(request, stimulus=str(first), samples=1, axis="", values=())
    if request.generator and not bench.catalogue.generator_class(request.generator).guided:
        return replace(plain, scales=plain.scales[:1])
    return plain


def begin(bench: Workbench, request: Request) -> Sheet:
    """Return the sheet with the finished pictures of the scale that is shown first."""
    plain = shared(bench, request)
    trials = bench.catalogue.trials(plain.dataset, plain.subject)
    gallery = bench.catalogue.gallery(plain.dataset, plain.subject)
    tiles = []
    for stimulus, row in gallery.iterrows():
        there = trials.rows("test", stimulus, plain.repeats)
        why = "" if len(there) >= max(1, len(plain.repeats)) else "It has no such repeat."
        named = str(row["caption"]), str(row["category"])
        tiles.append(Tile(str(stimulus), int(row["number"]), *named, why))
    scale = sampled_scale(plain)
    scales = plain.scales if plain.generator else ()
    scores = _picture_scores(bench, plain, tiles) if scales else ()
    notes = _notes(bench, plain, tiles)
    return with_pictures(bench, Sheet(plain, scales, scale, tuple(tiles), scores, notes), scale)


def with_pictures(bench: Workbench, sheet: Sheet, scale: float) -> Sheet:
    """Return the sheet with the scores of what is finished at one more of its scales."""
    if scale not in sheet.scales:
        return sheet
    tiles = []
    for tile in sheet.tiles:
        found = None if tile.why else kept_small(bench, _decided(bench, sheet, tile, scale))
        pictures = dict(tile.pictures) | ({scale: found[1]} if found else {})
        tiles.append(replace(tile, pictures=pictures))
    return replace(sheet, tiles=tuple(tiles))


def ranked(bench: Workbench, sheet: Sheet) -> Sheet:
    """Return the sheet with what was decoded of each trial, and what ``evaluate`` measured."""
    request = sheet.request
    if reason := undecoded(bench, request):
        return replace(sheet, notes=(*sheet.notes, reason))
    stimuli, decoded = standing.decoded_test(bench, request)
    space = decoded_space(bench, request)
    every = [tile.stimulus for tile in sheet.tiles]
    index, n = np.array([every.index(stimulus) for stimulus in stimuli]), len(every)
    gallery = bench.models.embed(request.dataset, every, space)
    similar = similarities(decoded, gallery, space)
    own = similar[np.arange(len(index)), index]
    rank = np.ceil(metrics.retrieval_rank(similar, index))
    kind = "cosine similarity" if space.unit_norm else "correlation"
    others = (similar.sum() - own.sum()) / (len(index) * (n - 1)) if n > 1 else math.nan
    found = {
        RANK: dict(zip(stimuli, rank, strict=True)),
        "similarity": dict(zip(stimuli, own, strict=True)),
    }
    scores = [
        Score(
            *(RANK, "Rank of the true image"),
            f"The place of the shown image among {n} test images by {kind} to the decoded "
            f"{space.name} embedding; 1 is best",
            "lower",
            chance={None: (n + 1) / 2},
            chance_of="the mean rank of guessing",
        ),
        Score(
            *("similarity", "Decoded similarity"),
            f"{kind.capitalize()} of the decoded {space.name} embedding and the shown image's",
            chance={None: float(others)},
            chance_of="the mean similarity to the other test images",
        ),
    ]
    measured, values, notes = _evaluated(bench, request, space.name)
    found |= values
    tiles = []
    for tile in sheet.tiles:
        own_scores = {k: of[tile.stimulus] for k, of in found.items() if tile.stimulus in of}
        tiles.append(replace(tile, scores={k: float(v) for k, v in own_scores.items()}))
    left = standing.left_out(bench, request, len(stimuli))
    notes = [*sheet.notes, *([left] if left else []), *notes]
    return replace(
        sheet,
        tiles=tuple(tiles),
        scores=(*sheet.scores, *scores, *measured),
        notes=tuple(notes),
    )


def with_chance(bench: Workbench, sheet: Sheet) -> Sheet:
    """Return the sheet with what guessing gives of the pictures that are finished.

    Each of at most `CHANCE_SAMPLE` pictures against the shown image of the next one's trial.
    """
    if not any(score.of == PICTURE for score in sheet.scores):
        return sheet
    of: dict[str, dict[float | None, float]] = {}
    for scale in sheet.scales:
        there = [tile for tile in sheet.tiles if dict(tile.pictures).get(scale)]
        sample = [there[i] for i in metrics.evenly(len(there), CHANCE_SAMPLE)]
        if len(sample) < 2:
            continue
        decided = tuple(_decided(bench, sheet, tile, scale) for tile in sample)
        names = [tile.stimulus for tile in sample]
        values = bench.caches.answers.get(
            ("chance of pictures", decided), lambda d=decided, n=names: _guessed(bench, d, n)
        )
        for key, value in values.items():
            of.setdefault(key, {})[scale] = value
    known = f"measured, each picture (of at most {CHANCE_SAMPLE}) against another trial's image"
    scores = [
        replace(score, chance=of[score.key], chance_of=known) if score.key in of else score
        for score in sheet.scores
    ]
    return replace(sheet, scores=tuple(scores))


def seconds_each(bench: Workbench, sheet: Sheet, scale: float) -> float:
    """Return about how long one picture takes at a scale; 0 where nothing is left to draw."""
    lacking = sheet.lacking(scale)
    return seconds_needed(bench, _one(sheet, lacking[0], scale)) if lacking else 0.0


def draw(
    bench: Workbench, sheet: Sheet, scale: float, most: int | None = None
) -> Iterator[tuple[Sheet, int, int]]:
    """Return an iterator of the sheet as its pictures come, how many came, and of how many.

    One trial after another, each as its own page draws it, at most ``most``. What cannot be drawn
    says so on its tile; several in a row end it.
    """
    wanted = sheet.lacking(scale)[:most]
    at = {tile.stimulus: i for i, tile in enumerate(sheet.tiles)}
    tiles, failed = list(sheet.tiles), 0
    for done, tile in enumerate(wanted, 1):
        try:
            # to its end, after which it is known how long one takes
            *_, frame = (f for f in reconstruct(bench, _one(sheet, tile, scale)) if f.done)
            pictures = dict(tile.pictures) | {scale: dict(frame.scores)}
            tiles[at[tile.stimulus]], failed = replace(tile, pictures=pictures), 0
        except UserError as error:
            failed += 1
            if failed == min(FAILURES, len(wanted)):
                raise
            tiles[at[tile.stimulus]] = replace(tile, why=str(error))
        yield replace(sheet, tiles=tuple(tiles)), done, len(wanted)


# ----------------------------------------------------------------------------- sorted and filtered


def ordered(tiles: Sequence[Tile], score: Score, scale: float, best_first: bool = True) -> list:
    """Return tiles from the best value to the worst, or the other way about.

    Of equals the first in the data set; those without a value stand last either way.
    """
    sign = -1 if (score.better == "higher") == best_first else 1

    def key(tile: Tile) -> tuple[bool, float, int]:
        value = tile.value(score, scale)
        known = not math.isnan(value)
        return not known, sign * value if known else 0.0, tile.number

    return sorted(tiles, key=key)


def extremes(tiles: Sequence[Tile], score: Score, scale: float) -> tuple[set[str], set[str]]:
    """Return the stimuli of the best and those of the worst value; none where all are equal."""
    values = {tile.stimulus: tile.value(score, scale) for tile in tiles}
    known = [value for value in values.values() if not math.isnan(value)]
    if not known or min(known) == max(known):
        return set(), set()
    ends = [{s for s, v in values.items() if v == end} for end in (max(known), min(known))]
    return (ends[0], ends[1]) if score.better == "higher" else (ends[1], ends[0])


def matching(tiles: Sequence[Tile], category: str = "", text: str = "") -> list[Tile]:
    """Return the tiles of a category ("" is all) whose caption or name has every word of a text.

    Case and accents do not count.
    """
    words = _folded(text).split()
    return [
        tile
        for tile in tiles
        if (not category or tile.category == category)
        and all(word in _folded(f"{tile.caption} {tile.stimulus}") for word in words)
    ]


def _folded(text: str) -> str:
    apart = unicodedata.normalize("NFD", text)
    return "".join(c for c in apart if unicodedata.category(c)[0] != "M").lower()


# ---------------------------------------------------------------------------------------- pictures


def kept_small(bench: Workbench, decided: Decided) -> tuple[bytes, dict[str, float]] | None:
    """Return a finished picture's thumbnail (WebP) and scores; None where it is not there.

    The picture itself is not brought to memory: a sheet has hundreds.
    """
    found = bench.caches.thumbnails.peek(decided)
    if found is None:
        whole = looked_up(bench, decided)
        if whole is None:
            return None
        found = small_picture(whole.image, THUMBNAIL), dict(whole.scores)
        bench.caches.thumbnails.put(decided, found)
    return found


def thumbnail(bench: Workbench, request: Request, stimulus: str, scale: float) -> bytes | None:
    """Return the thumbnail of a trial's picture, WebP; None where that is not there."""
    one = replace(shared(bench, request), stimulus=stimulus, scales=(scale,))
    found = kept_small(bench, decided_pictures(bench, one)[0])
    return found[0] if found else None


def shown_thumbnail(bench: Workbench, request: Request, stimulus: str) -> bytes | None:
    """Return the thumbnail of what was shown, WebP; None where no picture stands for it."""
    if bench.catalogue.without_picture(request.dataset, stimulus):
        return None
    place = "shown", request.dataset, stimulus

    def make() -> tuple[bytes, dict[str, float]]:
        return small_picture(bench.catalogue.image(request.dataset, stimulus), THUMBNAIL), {}

    return bench.caches.thumbnails.get(place, make)[0]


def _one(sheet: Sheet, tile: Tile, scale: float) -> Request:
    return replace(sheet.request, stimulus=tile.stimulus, scales=(scale,))


def _decided(bench: Workbench, sheet: Sheet, tile: Tile, scale: float) -> Decided:
    return decided_pictures(bench, _one(sheet, tile, scale))[0]


def _guessed(
    bench: Workbench, decided: Sequence[Decided], stimuli: Sequence[str]
) -> dict[str, float]:
    rows = []
    for one, other in zip(decided, [*stimuli[1:], stimuli[0]], strict=True):
        if (picture := looked_up(bench, one)) is not None:  # else it went in between
            place = one.request.dataset, other
            rows.append(likeness(bench, bench.catalogue.image(*place), picture.image, place))
    keys = set.intersection(*(set(row) for row in rows)) if rows else set()
    return {key: float(np.nanmean([row[key] for row in rows])) for key in keys}


def _picture_scores(
    bench: Workbench, request: Request, tiles: Sequence[Tile]
) -> tuple[Score, ...]:
    without = bench.catalogue.without_picture
    if all(without(request.dataset, tile.stimulus) for tile in tiles):
        return ()
    known = [k for k in PICTURE_SCORES if k != SIMILARITY or k in bench.catalogue.embedders]
    return tuple(Score(key, *PICTURE_SCORES[key], of=PICTURE) for key in known)


def _notes(bench: Workbench, request: Request, tiles: Sequence[Tile]) -> tuple[str, ...]:
    notes = []
    lost = sum(bool(tile.why) for tile in tiles)
    if lost:
        notes.append(f"{lost} of {len(tiles)} test images have no such repeat.")
    if not request.generator:
        notes.append("There is no generator here, so nothing is drawn.")
    elif why := bench.catalogue.without_picture(request.dataset, request.stimulus):
        notes.append(why)
    return tuple(notes)


def _evaluated(
    bench: Workbench, request: Request, target: str
) -> tuple[list[Score], dict[str, dict[str, float]], list[str]]:
    """Return what an evaluation that was made before measured of each trial, where there is one.

    It is of averaged repeats, so of nothing else is it shown.
    """
    try:
        found = evaluation.find_evaluation(bench, request.dataset)
    except UserError as error:
        return [], {}, [str(error)]
    if found is None or target not in found.targets or request.repeats:
        return [], {}, []
    measured = found.weights.get(request.mapper, {}).get(request.subject)
    if measured is None:
        return [], {}, []
    now = evaluation.weights_of(bench, request.dataset, request.subject, request.mapper)
    if now != measured:
        told = (
            f"The evaluation was made with other weights of {request.mapper}, so it is left out."
        )
        return [], {}, [told]
    scores, values = [], {}
    for key, meaning in found.scores.items():
        if not meaning.by_trial:
            continue
        rows = found.rows(target, key)
        own = (rows["mapper"] == request.mapper) & (rows["subject"] == request.subject)
        if not own.any():
            continue
        chance = {None: float(rows["chance"][own].iloc[0])}
        name = f"evaluation {key}"
        sentence = f"{meaning.sentence.rstrip('.')} (python -m backends evaluate)"
        told = "as evaluate found it" if math.isfinite(chance[None]) else ""
        title = f"{meaning.title} (evaluate)"
        scores.append(Score(name, title, sentence, meaning.better, TRIAL, chance, told))
        values[name] = dict(found.distribution(target, key, request.mapper, request.subject))
    return scores, values, []
