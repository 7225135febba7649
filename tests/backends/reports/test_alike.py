"""Pictures under two ids: planted copies are told, and strangers are not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from backends.reports.alike import look, same_pictures

TRAIN, TEST = [f"a{i}" for i in range(12)], [f"b{i}" for i in range(6)]


def picture(seed: int) -> np.ndarray:
    """Return a scene of coloured blocks, uint8 (96, 96, 3)."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(blocks).resize((96, 96), Image.Resampling.BICUBIC))


def told(by_stimulus: bool = True, **changed: np.ndarray) -> list[str]:
    pictures = {name: picture(i) for i, name in enumerate([*TRAIN, *TEST])} | changed
    looks = {name: look(image) for name, image in pictures.items()}
    return list(same_pictures(looks, set(TRAIN), set(TEST), by_stimulus))


def jpeg(image: np.ndarray) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=50)
    return np.asarray(Image.open(stream))


def test_new_pictures_are_not_told():
    assert told() == []


def test_a_test_picture_that_was_trained_on_is_told():
    (sentence,) = told(b1=picture(3), b4=picture(7))
    assert sentence.startswith("2 test stimuli have the picture of a training stimulus under")
    assert "(first 'b1', which is 'a3')" in sentence and "or leave them out of one spl" in sentence
    assert told(by_stimulus=False, b1=picture(3)) == []  # it is meant to be seen in training


@pytest.mark.parametrize(
    "copy",
    [
        jpeg,
        lambda a: np.asarray(Image.fromarray(a).resize((48, 48), Image.Resampling.BILINEAR)),
        lambda a: np.asarray(ImageEnhance.Brightness(Image.fromarray(a)).enhance(1.1)),
    ],
)
def test_a_copy_in_another_form_is_told(copy):
    (sentence,) = told(b2=copy(picture(5)))
    assert sentence.startswith("1 test stimuli look like a training stimulus (first 'b2', like 'a")
    assert "'a5'" in sentence and "another size, format or brightness?" in sentence
    assert told(by_stimulus=False, b2=copy(picture(5))) == []


def test_equal_pictures_within_a_split_are_told():
    first, second = told(b1=picture(12), a3=picture(1))
    assert first.startswith("2 test stimuli share their picture with another test stimulus (first")
    assert "'b0' and 'b1'" in first and "their trials count as repeats" in first
    assert second.startswith("2 training stimuli share") and "'a1' and 'a3'" in second


def test_a_placeholder_is_told_once_and_not_as_a_leak():
    card = np.full((96, 96, 3), 220, np.uint8)
    (sentence,) = told(a1=card, a2=card, a3=card, b1=card, b5=card)
    assert sentence.startswith("5 stimuli have one and the same picture ('a1', 'a2', 'a3', ...)")
    assert "2 of them test stimuli: a placeholder for pictures that are gone?" in sentence


def test_a_picture_of_one_colour_is_told():
    (sentence,) = told(b1=np.zeros((96, 96, 3), np.uint8))
    assert sentence.startswith("1 stimuli are of one colour all over ('b1')")


def test_pictures_of_other_sizes_with_equal_bytes_are_not_equal():
    wide = picture(0).reshape(48, 192, 3)
    assert not any("have the picture" in sentence for sentence in told(b0=wide))
