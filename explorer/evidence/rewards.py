"""What PixCorr and SSIM reward: pictures that no brain made, scored as if one had.

A blur of what was shown, the mean training image and another test image's picture say where the
scale of these scores begins; the generator's autoencoder says where it ends for that generator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np

from explorer import metrics, splits, stopping
from explorer.evidence.critique import Finding, Rate, rate, row, with_n
from explorer.metrics import evenly, match_size, written
from explorer.types import UserError
from explorer.workbench import Workbench

SIGMAS = (0.02, 0.05, 0.1)  # of the blur, as shares of the image's width
MOST_AVERAGED = 500  # training images in the mean image: our choice
MOST = 100  # test images that the page scores
MEAN, ANOTHER = "mean training image", "another test image"
NEAREST = "training image nearest to what is decoded"
SCORES = {"PixCorr": metrics.pixcorr, "SSIM": metrics.ssim}
SMALLEST = 11  # pixels of SSIM's window

Pictures = Iterable[np.ndarray]


def blur_name(sigma: float) -> str:
    """Return what a blur is called."""
    return f"shown image, blurred by {100 * sigma:g} % of its width"


def autoencoder_name(generator: str) -> str:
    """Return what the decoded latents of the truth are called."""
    return f"shown image through {generator}'s autoencoder"


def references(
    bench: Workbench,
    dataset: str,
    subject: str,
    shown: Sequence[np.ndarray],
    generator: str = "",
) -> Iterator[tuple[str, Pictures]]:
    """Yield what a reference is called and its pictures, one for each shown uint8 (H, W, 3).

    The last is of a generator that has ``autoencoded``. `UserError` where the pictures of the
    training stimuli cannot be read, after the blurs.
    """
    for sigma in SIGMAS:
        yield blur_name(sigma), [blurred(image, sigma) for image in stopping.steps(shown)]
    others = [shown[-1], *shown[:-1]]
    yield ANOTHER, [match_size(o, *i.shape[:2]) for o, i in zip(others, shown, strict=True)]
    if generator and hasattr(bench.catalogue.generator_class(generator), "autoencoded"):
        model = bench.models.generator(generator)
        made = [model.autoencoded([image])[0] for image in stopping.steps(shown)]
        sized = [match_size(m, *i.shape[:2]) for m, i in zip(made, shown, strict=True)]
        yield autoencoder_name(generator), sized
    average = mean_image(bench, dataset, subject, shown[0].shape[:2])
    yield MEAN, [match_size(average, *image.shape[:2]) for image in shown]


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Return an image uint8 (H, W, 3) blurred by a Gaussian of ``sigma`` widths."""
    from scipy.ndimage import gaussian_filter

    pixels = sigma * image.shape[1]
    found = gaussian_filter(image.astype(np.float32), (pixels, pixels, 0), mode="nearest")
    return np.clip(np.round(found), 0, 255).astype(np.uint8)


def mean_image(bench: Workbench, dataset: str, subject: str, size: tuple[int, int]) -> np.ndarray:
    """Return the mean of training images, uint8 (*size, 3): of some of many, evenly spaced."""
    every = splits.shown([bench.catalogue.trials(dataset, subject)])[0]
    if not every:
        raise UserError(f"{dataset}/{subject} has no training images, so they have no mean.")
    total = np.zeros((*size, 3))
    chosen = evenly(len(every), MOST_AVERAGED)
    for i in stopping.steps(chosen):
        total += match_size(bench.catalogue.dataset(dataset).image(every[i]), *size)
    return np.round(total / len(chosen)).astype(np.uint8)


def rewards(
    bench: Workbench,
    dataset: str,
    subject: str,
    stimuli: Sequence[str],
    generator: str = "",
    retrieved: Sequence[str] = (),
    home: str = "",
) -> Finding:
    """Return PixCorr and SSIM, at the images' own size, of every reference.

    ``retrieved``: the training stimulus nearest to what is decoded from each of ``stimuli``, () to
    leave that row out. ``home``: the data set of the training stimuli, where it is another.
    """
    import pandas as pd

    chosen = evenly(len(stimuli), MOST)
    names = [stimuli[i] for i in chosen]
    shown = [bench.catalogue.image(dataset, name) for name in stopping.steps(names)]
    shown = [match_size(i, *(max(side, SMALLEST) for side in i.shape[:2])) for i in shown]
    found: dict[str, dict[str, np.ndarray]] = {}
    missing = ""
    made = references(bench, home or dataset, subject, shown, generator)
    if retrieved:
        nearest = [retrieved[i] for i in chosen]
        made = chain(made, [(NEAREST, _sized(bench, home or dataset, nearest, shown))])
    try:
        for name, pictures in made:
            pairs = list(zip(shown, pictures, strict=True))
            found[name] = {
                score: np.array([of(a, b) for a, b in stopping.steps(pairs)])
                for score, of in SCORES.items()
            }
    except UserError as error:
        missing = f" {error}"
    blind = {score: float(np.nanmean(found[ANOTHER][score])) for score in SCORES}
    rates = {
        (score, name): rate(values[score], blind[score])
        for score in SCORES
        for name, values in found.items()
    }
    table = pd.DataFrame([row(f"{s}: {name}", r) for (s, name), r in rates.items()])
    return Finding(
        "what PixCorr and SSIM reward",
        "PixCorr and SSIM of pictures that no brain made, at the images' own size: what was shown "
        f"after a Gaussian blur, the mean of up to {MOST_AVERAGED} training images, the shown "
        "image encoded and decoded by the generator's autoencoder; and of the training image "
        "nearest to what is decoded. The line is the score of another test image.",
        table,
        with_n(_sentence(rates) + missing, len(names)),
        unit="",
    )


def _sized(
    bench: Workbench, dataset: str, stimuli: Sequence[str], shown: Pictures
) -> Iterator[np.ndarray]:
    """Yield the pictures of stimuli in the sizes of those shown."""
    for stimulus, image in zip(stopping.steps(stimuli), shown, strict=True):
        yield match_size(bench.catalogue.dataset(dataset).image(stimulus), *image.shape[:2])


def _sentence(rates: dict[tuple[str, str], Rate]) -> str:
    said = []
    for name in (blur_name(SIGMAS[-1]), MEAN, ANOTHER):
        both = [(s, rates[s, name]) for s in SCORES if (s, name) in rates]
        told = [f"{s} {_told(r)}" for s, r in both]
        said += [f"{name}: {' and '.join(told)}"] if told else []
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}. Scores up to these need no sharp picture and no brain."


def _told(found: Rate) -> str:
    return f"{written(found.value)} ({written(found.low)} to {written(found.high)})"
