"""Whether a checkpoint was made for the data at hand: its voxels, and the split behind it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from explorer.types import Card, Subject, Trials, UserError


def split_hash(*trials: Trials) -> str:
    """Return which stimuli are train and which are test, as ``train-test`` (8 hex digits each).

    Several subjects give one such pair each, joined by commas in the order given (the order of
    ``Card.subjects``). No rows of a split give 8 zeros: a data set may ship without training rows.
    """
    return ",".join(
        "-".join(_digest(t.stimuli(split)) for split in ("train", "test")) for t in trials
    )


def check_fits(card: Card, study: Subject | Trials) -> None:
    """Refuse a mapper whose card names other voxels, or another split, than the data at hand.

    The split is compared when ``study`` is `Trials`, and only for the splits whose rows are there.
    """
    subject = study.subject if isinstance(study, Trials) else study
    who = f"{subject.dataset}/{subject.name}"
    if subject.name not in card.subjects:
        raise UserError(
            f"The mapper {card.name!r} was trained for "
            f"{', '.join(card.subjects) or 'no subject'}, not for {subject.name}; train one for "
            f"{who}."
        )
    count, digest = card.voxels[subject.name]
    found = subject.voxels
    if (count, digest) != (found.n_voxels, found.hash):
        raise UserError(
            f"The mapper {card.name!r} was trained on {count} voxels of {subject.name} (hash "
            f"{digest}), {who} has {found.n_voxels} (hash {found.hash}); train it again on these."
        )
    if isinstance(study, Trials) and (
        wrong := other_split(f"The mapper {card.name!r}", card, study)
    ):
        raise UserError(wrong)


def other_split(what: str, card: Card, trials: Trials) -> str:
    """Return why a checkpoint learned from another split of these trials, "" where it did not.

    One sentence that begins with ``what``. Compared are the splits whose rows are there, of cards
    that say theirs.
    """
    subject = trials.subject
    hashes = card.split_hash.split(",")
    if len(hashes) != len(card.subjects) or not card.split_hash:
        return ""
    expected = hashes[card.subjects.index(subject.name)]
    actual = split_hash(trials)
    # One that was trained on the same stimuli saw none of a new choice of test stimuli either.
    new_tests = bool(trials.split) or trials.growing
    if new_tests and expected.split("-")[0] == actual.split("-")[0] != _digest([]):
        return ""
    for split, a, b in zip(("train", "test"), expected.split("-"), actual.split("-"), strict=True):
        if a != b and b != _digest([]):
            return (
                f"{what} was trained with another choice of {split} stimuli "
                f"({_split_of(card)}hash {a}) than {subject.dataset}/{subject.name} has now "
                f"({_split_of(trials)}hash {b}); {_open_with(card, trials) or 'train it again'}."
            )
    return ""


def _split_of(one: Card | Trials) -> str:
    return f"split {one.split}, " if one.split else ""


def _open_with(card: Card, study: Trials) -> str:
    """Return how to open the data so that a mapper is tested on what it never saw."""
    if card.split == study.split:
        return ""
    name = study.subject.dataset
    if card.split:
        return f"open them with --dataset {name}=PATH?split={card.split}"
    return f"open them without ?split={study.split}, or train one on it with --split {study.split}"


def _digest(stimuli: Sequence[str]) -> str:
    if not len(stimuli):
        return "0" * 8
    return hashlib.sha256("\n".join(sorted(map(str, stimuli))).encode()).hexdigest()[:8]
