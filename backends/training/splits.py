"""Ways to split stimuli into train and test that ask more of a decoder than the usual one.

``random_i``: one in five stimuli. ``cluster_kK_i``: k-means of their features into K clusters, of
which one whole cluster is test. ``tau`` or ``tau_Q``: the test stimuli whose nearest training
stimulus is farther away than that of Q % of them (50 unless named).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from explorer.splits import Split, clusters, nearest
from explorer.types import UserError

FOLDS = 5
KINDS = "random_0 to random_4, cluster_k5_0 to cluster_k5_4 (or another k), tau, tau_75"
RANDOM = re.compile(r"random_(\d+)")
CLUSTER = re.compile(r"cluster_k(\d+)_(\d+)")
TAU = re.compile(r"tau(?:_(\d+))?")


def needs_features(name: str) -> bool:
    """Return whether a kind of split rests on features of the pictures; others are refused."""
    if RANDOM.fullmatch(name):
        return False
    if CLUSTER.fullmatch(name) or TAU.fullmatch(name):
        return True
    raise UserError(f"There is no kind of split {name!r}; choose one of {KINDS}.")


def make_split(
    name: str,
    dataset: str,
    train: Sequence[str],
    test: Sequence[str],
    features: np.ndarray | None = None,
    space: str = "",
) -> Split:
    """Return a named split.

    Parameters
    ----------
    name
        Its kind, see the top of this module.
    dataset
        Whose.
    train, test
        The stimuli of the data set's own split.
    features
        (len(train) + len(test), ...), the training ones first; for clusters and tau.
    space
        What the features are.
    """
    needs = needs_features(name)
    stimuli = [*train, *test]
    if needs and (features is None or len(features) != len(stimuli)):
        raise UserError(f"The split {name!r} rests on features of all {len(stimuli)} stimuli.")
    if match := RANDOM.fullmatch(name):
        chosen, by = _random(stimuli, int(match[1])), f"one in {FOLDS} stimuli by a hash of its id"
    elif match := CLUSTER.fullmatch(name):
        k, which = int(match[1]), int(match[2])
        number = clusters(features, k)
        if which >= k:
            raise UserError(f"The clusters of {name!r} are 0 to {k - 1}, found {which}.")
        chosen = [s for s, c in zip(stimuli, number, strict=True) if c == which]
        by = f"cluster {which} of k-means of {space} into {k}, the largest is 0"
    else:
        quantile = int(TAU.fullmatch(name)[1] or 50)
        if not 0 < quantile < 100:
            raise UserError(f"{name!r}: a quantile lies between 1 and 99 %, found {quantile}.")
        near = nearest(features[len(train) :], features[: len(train)])
        tau = float(np.quantile(1 - near, quantile / 100))
        kept = [s for s, n in zip(test, near, strict=True) if 1 - n > tau]
        by = (
            f"test stimuli whose nearest training stimulus in {space} is farther than tau = "
            f"{tau:.4f} (cosine distance), the {quantile} % quantile"
        )
        return Split(name, by, dataset, frozenset(train), frozenset(kept))
    return Split(name, by, dataset, frozenset(stimuli) - frozenset(chosen), frozenset(chosen))


def _random(stimuli: Sequence[str], fold: int) -> list[str]:
    """Return the stimuli of one fold; a stimulus is in the same one whoever saw it."""
    if fold >= FOLDS:
        raise UserError(f"The random splits are random_0 to random_{FOLDS - 1}.")
    digests = (hashlib.sha256(s.encode()).digest() for s in stimuli)
    folds = [int.from_bytes(digest[:4], "big") % FOLDS for digest in digests]
    return [s for s, f in zip(stimuli, folds, strict=True) if f == fold]
