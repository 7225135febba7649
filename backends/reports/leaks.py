"""Test pictures that a mapper may know from training: the audit before it is trained.

Embeddings say which pairs to look at, and the pictures of these pairs whether they are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from backends.reports.alike import look, same_pictures
from explorer.metrics import unit
from explorer.protocols import Dataset
from explorer.splits import USUAL, nearest, usual_similarity
from explorer.types import UserError

EQUAL = 1e-5  # of cosine: rounding of embeddings of one picture
MOST_LIKE_ONE = 50  # training stimuli that are compared with one test stimulus
MOST_LOOKED_AT = 100  # test stimuli whose pictures are compared, the closest first


def audit(
    study: Dataset,
    train: Sequence[str],
    test: Sequence[str],
    features: np.ndarray,
    space: str,
    compared: bool = False,
) -> Iterator[str]:
    """Yield sentences about test stimuli that are very close to a training stimulus.

    Parameters
    ----------
    study
        Whose pictures they are; those that cannot be read are left out.
    train, test
        The stimuli.
    features
        (len(train) + len(test), ...), the training ones first.
    space
        What the features are, e.g. pocket-clip/image.
    compared
        All pictures were compared already, so nothing more is said of which are the same.
    """
    if len(train) < 3 or not len(test):
        return
    rows = unit(np.asarray(features, np.float32).reshape(len(features), -1))
    known, new = rows[: len(train)], rows[len(train) :]
    threshold = min(usual_similarity(known), 1 - EQUAL)  # equal ones are told whatever is usual
    near = nearest(new, known)
    over = np.flatnonzero(near >= threshold)
    if not len(over):
        yield (
            f"Leak audit in {space}: no test stimulus is closer to a training stimulus than "
            f"{USUAL:.0%} of those are to each other (cosine {threshold:.3f}, N {len(test)})."
        )
        return
    closest = over[np.argsort(-near[over])]
    first = closest[0]
    other = train[int(np.argmax(known @ new[first]))]
    yield (
        f"Leak audit in {space}: {len(over)} of {len(test)} test stimuli "
        f"({len(over) / len(test):.1%}; {1 - USUAL:.0%} is expected) are closer to a training "
        f"stimulus than {USUAL:.0%} of those are to each other (cosine {threshold:.3f}); the "
        f"closest is {test[first]!r}, like {other!r} ({near[first]:.3f})."
    )
    if compared:
        return
    tested, trained = [test[i] for i in closest[:MOST_LOOKED_AT]], {}
    for i in closest[:MOST_LOOKED_AT]:
        alike = known @ new[i]
        nearest_first = np.argsort(-alike)[:MOST_LIKE_ONE]  # equal pictures are equally near
        trained |= {train[at]: None for at in nearest_first if alike[at] > alike.max() - EQUAL}
    pictures = {}
    for stimulus in dict.fromkeys([*tested, *trained]):
        try:
            pictures[stimulus] = look(study.image(stimulus))
        except UserError:
            continue  # studies are often had without some of their pictures
    there = set(pictures)
    yield from same_pictures(pictures, there & set(trained), there & set(tested))
