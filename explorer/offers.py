"""Which checkpoints serve whom: cards that are read, held against a subject, and offered."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.files import read_object
from explorer.folders import mend, was_cut_off
from explorer.matching import other_split
from explorer.types import FILES, Card, EmbeddingSpace, Subject, Trials, UserError, resolve

if TYPE_CHECKING:
    from explorer.store import Store

TRAINED_ON = "(trained on"  # and a data set: of mappers of a further test set
FIT_NOW = "ridge"  # quick enough to be fitted while a person waits
FITTED = "ridge (fitted now)"
OURS = ("backends.", "explorer.")  # whose sources are read before they are imported
MODELS = {"answer": "models"}  # what decides the list of models behind a store
PLACE = re.compile(r"[^/\\\0.][^/\\\0]*/[^/\\\0.][^/\\\0]*")  # data set and checkpoint
FIT_LIMIT = 50_000_000  # training trials x voxels, 200 MB as float32: our choice


@dataclass(frozen=True, eq=False)
class Offer:
    """A mapper that fits a subject: a checkpoint, or only targets that one is to be fitted to.

    ``published``: the mapper itself, where it looks up what others predicted. ``elsewhere``: it
    was trained on another data set with the same voxels, so its split says nothing here.
    """

    targets: tuple[EmbeddingSpace, ...]
    folder: Path | None = None
    card: Card | None = None
    published: Any = None
    elsewhere: bool = False


@dataclass
class Behind:
    """Models that made what a store keeps: cards by ``DATA SET/CHECKPOINT``, and short hashes.

    They stand for models whose weights are not here; what was kept of those can still be shown.
    """

    mappers: dict[str, tuple[Card, str]] = field(default_factory=dict)
    generators: dict[str, str] = field(default_factory=dict)
    embedders: dict[str, str] = field(default_factory=dict)

    def absent(self, checkpoints: Path) -> list[tuple[Path, Card]]:
        """Return the folder and card of each mapper whose checkpoint is not there."""
        places = {checkpoints / "mappers" / name: card for name, (card, _) in self.mappers.items()}
        return [(folder, card) for folder, card in places.items() if not folder.exists()]

    def mapper_hash(self, folder: Path) -> str:
        """Return the hash of an absent mapper's files, "none" for one that is not known."""
        return self.mappers.get(f"{folder.parent.name}/{folder.name}", (None, "none"))[1]


def models_behind(store: Store | None) -> Behind:
    """Return the models that made what a store holds, for those whose weights are not here."""
    behind = Behind()
    known = (store and store.answer(MODELS)) or {}
    try:
        for place, mapper in known.get("mappers", {}).items():
            if PLACE.fullmatch(place):
                behind.mappers[place] = Card.from_dict(mapper["card"]), str(mapper["hash"])
        for kind in ("generators", "embedders"):
            found = {str(name): str(value) for name, value in known.get(kind, {}).items()}
            getattr(behind, kind).update(found)
    except (UserError, KeyError, TypeError, AttributeError):
        return Behind()  # of another version
    return behind


def read_cards(checkpoints: Path, report: Callable[[str], None]) -> list[tuple[Path, Card]]:
    """Return the folder and card of every mapper; ``report`` is told of those left out."""
    cards = []
    for path in sorted(checkpoints.glob("mappers/*/*/card.json")):
        if path.parent.name.startswith("."):  # what an interrupted save leaves is no mapper
            if path.parent.name.endswith(".old"):
                report(_cut_off(path.parent))
            continue
        try:
            cards.append((path.parent, Card.from_dict(read_object(path))))
        except UserError as error:
            report(f"{path.parent.name}: {error}")
    return cards


def offered_as(offers: Mapping[str, Offer], mapper: str) -> Offer | None:
    """Return the offer of a name, None for none.

    On a further test set a name without where it was trained means the only one of that name.
    """
    if mapper in offers:
        return offers[mapper]
    meant = [one for name, one in offers.items() if name.startswith(f"{mapper} {TRAINED_ON} ")]
    return meant[0] if len(meant) == 1 and mapper else None


def no_mapper(
    who: str, mapper: str, offers: Mapping[str, Offer], why: str, test_only: bool
) -> UserError:
    """Return the error for a mapper that is not on offer; ``why`` it is withheld, "" if it is not.

    ``test_only``: see `explorer.protocols.Dataset`.
    """
    if offers:
        return UserError(
            f"There is no mapper {mapper!r} for {who}; choose one of {', '.join(offers)}. "
            f"{why}".rstrip()
        )
    if test_only:
        return UserError(
            f"There is no mapper for {who}, which has no training trials; train one on the data "
            "set with these voxels that has some."
        )
    return UserError(
        f"There is no mapper for {who}; train one with: python -m backends train ridge --dataset "
        f"{who.partition('/')[0]}=PATH"
    )


def mended(checkpoints: Path) -> list[str]:
    """Put right what killed saves left in a folder of checkpoints; a sentence for each."""
    found = [checkpoints]
    for pattern in ("*", "*/*"):  # generators/NAME, mappers/DATASET/NAME
        found += (path for path in sorted(checkpoints.glob(pattern)) if path.is_dir())
    left = [folder for folder in found if was_cut_off(folder)]
    if not left:
        return []
    from explorer.mapper import is_whole

    return [told for folder in left for told in mend(folder, is_whole, FILES)]


def _cut_off(left: Path) -> str:
    """Return what to do about a former checkpoint whose replacement was interrupted."""
    name = left.name[1:].rsplit(".", 2)[0]  # as explorer.mapper names it: .NAME.random.old
    if left.with_name(name).exists():
        return f"{left} is the former {name}, left by a save that was cut off; delete it."
    return (
        f"The mapper {name} is not where it was: a save was cut off and left it as {left}; rename "
        f"that folder to {name}, or give the command of its training again."
    )


def find_mappers(
    cards: Sequence[tuple[Path, Card]],
    trials: Trials,
    known: Mapping[str, Any],
    report: Callable[[str, str], None],
    test_only: bool = False,
) -> dict[str, Offer]:
    """Return the mappers that read a subject's voxels, by name; those that do not are reported.

    So are those that learned from another split of the trials: they may know its test images.
    ``report`` is given the mapper's name and a sentence.
    ``test_only``: the data set is a further test set, see `explorer.protocols.Dataset`. Whatever
    was trained on these very voxels serves it, and its name says on which data set; not what was
    trained on a named split, which may hold pictures of the further test set as training ones.
    """
    subject = trials.subject
    found, voxels = [], (subject.voxels.n_voxels, subject.voxels.hash)
    for folder, card in cards:
        if subject.name not in card.subjects:
            continue
        same = card.voxels.get(subject.name) == voxels
        if card.dataset != subject.dataset and not (test_only and same):
            if same:  # these very voxels, under another name
                report(
                    card.name,
                    f"The mapper in {folder.name} was trained on these voxels of {subject.name}, "
                    f"but under the data set's name {card.dataset!r}; to use it here, open the "
                    f"data as {card.dataset}=PATH instead of {subject.dataset}=PATH.",
                )
            continue
        if test_only and same and card.split:
            report(
                card.name,
                f"The mapper in {folder.name} was trained on the split {card.split} of "
                f"{card.dataset}, which may train on pictures that {subject.dataset} tests; train "
                f"one on the split that {card.dataset} comes with.",
            )
            continue
        what = f"The mapper in {folder.name}"
        wrong = misfit(what, card, subject, known)
        if not test_only:  # whose trials were split for nobody
            wrong = wrong or other_split(what, card, trials)
        if wrong:
            report(card.name, wrong)
        else:
            found.append((folder, card))
    # in the order of the dict literal, so that what comes first there is shown first
    kinds = list(known)
    found.sort(key=lambda one: kinds.index(one[1].cls))
    names = [card.name for _, card in found]
    offers = {}
    for folder, card in found:
        name = card.name if names.count(card.name) == 1 else folder.name
        if test_only:
            name = f"{name} {TRAINED_ON} {card.dataset})"
        offers[name] = Offer(card.targets, folder, card, elsewhere=test_only)
    return offers


def fit_offer(
    trials: Trials, spaces: Sequence[EmbeddingSpace], report: Callable[[str], None]
) -> dict[str, Offer]:
    """Offer a mapper fitted on the spot to the smallest of spaces that a generator draws from."""
    who = f"{trials.subject.dataset}/{trials.subject.name}"
    rows, count = len(trials.rows("train")), trials.subject.voxels.n_voxels
    if not rows:
        report(
            f"There is no mapper for {who}, and it has no training trials to make one; train one "
            "on a data set of the same voxels."
        )
        return {}
    if not spaces:
        report(f"There is no mapper for {who}, nor can its {rows} training trials make one.")
        return {}
    if rows * count > FIT_LIMIT:
        report(
            f"There is no mapper for {who}, and its {rows} training trials of {count} voxels "
            "are too many to fit one while you wait; run: python -m backends train ridge "
            f"--dataset {who.partition('/')[0]}=PATH"
        )
        return {}
    return {FITTED: Offer((min(spaces, key=lambda space: space.size),))}


def find_encoder(
    folder: Path,
    trials: Trials,
    known: Mapping[str, Any],
    embedder_name: Callable[[EmbeddingSpace], str],
    report: Callable[[str], None],
) -> Offer | None:
    """Return the encoding model in a folder, None where none serves this subject."""
    if not known or not (folder / "card.json").is_file():
        return None
    subject = trials.subject
    what = f"The encoding model of {subject.dataset}/{subject.name}"
    try:
        card = Card.from_dict(read_object(folder / "card.json"))
    except UserError as error:
        report(f"{what}: {error}")
        return None
    wrong = misfit(what, card, subject, known) or other_split(what, card, trials)
    blind = [space for space in card.targets if not embedder_name(space)]
    if not wrong and blind:
        wrong = (
            f"{what} reads {blind[0].name}, and no embedder here puts images into that; train "
            "it on a space of this version."
        )
    if wrong:
        report(wrong)
        return None
    return Offer(card.targets, folder, card)


def misfit(what: str, card: Card, subject: Subject, known: Mapping[str, Any]) -> str:
    """Return why a checkpoint does not serve a subject, one sentence that begins with ``what``."""
    voxels, made_for = subject.voxels, card.voxels.get(subject.name, (0, "none"))
    if made_for != (voxels.n_voxels, voxels.hash):
        return (
            f"{what} was made for {made_for[0]} voxels (hash {made_for[1]}), "
            f"{subject.dataset}/{subject.name} has {voxels.n_voxels} (hash {voxels.hash}); train "
            "it again on these."
        )
    if card.cls not in known:
        return (
            f"{what} is of the kind {card.cls!r}, which this version does not have; it has "
            f"{', '.join(known) or 'none'}."
        )
    return ""


def has_method(entry: str | type, method: str) -> bool:
    """Return whether the class behind an entry of the dict literals has a method.

    A class whose module nobody has imported is read from its source: the page asks before its
    first answer, and a mapper's module takes torch with it.
    """
    if not isinstance(entry, str) or entry.partition(":")[0] in sys.modules:
        return hasattr(resolve(entry), method)
    return method in _methods(*entry.split(":"))


@cache
def _methods(module: str, name: str) -> frozenset[str]:
    """Return the methods in a class's source and in those of its bases that are written here."""
    spec = find_spec(module)
    tree = ast.parse(Path(spec.origin).read_text("utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    came = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    found = {node.name for node in classes[name].body if isinstance(node, ast.FunctionDef)}
    for base in classes[name].bases:
        if not isinstance(base, ast.Name):
            continue
        place = (module, base.id) if base.id in classes else came.get(base.id)
        if place and place[0].startswith(OURS):
            found |= _methods(*place)
    return frozenset(found)
