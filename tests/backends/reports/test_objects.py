"""Object F1 and similar captions: known answers, and tiny models of the real architectures."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from backends.reports.definitions import DEFINITIONS
from backends.reports.feature_networks import IMAGENET, Features
from backends.reports.objects import THRESHOLDS, Captions, Detector, object_f1
from backends.reports.scores import measure
from explorer.types import UserError
from tests.backends.embedders.test_captions import save_git

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] . a red cat by the sea on blue grass".split()


def found(*categories, at=0.95):
    """Return what a detector finds in one picture with one score: bool (thresholds, 4)."""
    row = np.zeros((len(THRESHOLDS), 4), bool)
    row[at >= THRESHOLDS] = np.isin(np.arange(4), categories)
    return row


@pytest.mark.parametrize(
    ("shown", "made", "f1"),
    [
        (found(0, 1), found(0, 1), 1),
        (found(0, 1), found(2, 3), 0),
        (found(0, 1), found(0), 2 / 3),  # recall 1/2, precision 1
        (found(0), found(0, 1, 2), 1 / 2),  # recall 1, precision 1/3
        (found(), found(), 1),  # nothing to be found, nothing found
        (found(), found(1), 0),  # SEED's recall is 1 here, its precision 0
        (found(1), found(), 0),
        # the picture's is found at 9 of the 18 thresholds of what was shown: recall 1/2
        (found(0), found(0, at=0.46), 2 / 3),
    ],
)
def test_object_f1_of_known_pictures(shown, made, f1):
    assert len(THRESHOLDS) == 18 and THRESHOLDS[-1] == pytest.approx(0.9)
    assert object_f1(shown[None], made[None])[0] == pytest.approx(f1)


def pictures(n=4, side=48):
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (side, side, 3), np.uint8) for _ in range(n)]


@pytest.fixture(scope="module")
def yolos(tmp_path_factory):
    """Write a YOLOS of one layer with three categories."""
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    folder = tmp_path_factory.mktemp("yolos")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    config = YolosConfig(
        **sizes,
        num_hidden_layers=1,
        image_size=[48, 48],
        num_detection_tokens=6,
        id2label={0: "cat", 1: "dog", 2: "sea"},
    )
    torch.manual_seed(0)
    model = YolosForObjectDetection(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)
    model.save_pretrained(folder)
    YolosImageProcessor(size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder, model


def test_a_detector_gives_categories_by_score_and_size(yolos, monkeypatch):
    folder, model = yolos
    detector = Detector(folder)
    assert detector.variant == f"yolos of {folder.name}, 3 categories"
    given = pictures(2)
    scores, labels, boxes = detector.detect(given[0])
    mean, sd = (torch.tensor(v)[:, None, None] for v in IMAGENET)
    pixels = torch.from_numpy(given[0]).permute(2, 0, 1) / 255
    with torch.inference_mode():
        logits = model(pixel_values=((pixels - mean) / sd)[None]).logits[0]
    best = logits.softmax(-1)[:, :3].max(-1).values.numpy()
    np.testing.assert_allclose(np.sort(scores), np.sort(best[best > 0.05]), atol=1e-5)
    rows = detector(given).reshape(2, len(THRESHOLDS), 3)
    large = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) >= 50
    for k, threshold in enumerate(THRESHOLDS):
        there = {int(label) for label in labels[large & (scores >= threshold)]}
        assert set(np.flatnonzero(rows[0, k])) == there
    corner = np.array([[0.0, 0.0, 7.0, 7.0]])  # 49 pixels, one too few
    monkeypatch.setattr(
        detector, "detect", lambda image: (np.array([0.95]), np.array([1]), corner)
    )
    assert not detector(given).any()
    corner[0, 2] = 8
    assert detector(given).sum() == 2 * 18


@pytest.fixture(scope="module")
def grounding(tmp_path_factory):
    """Write a Grounding DINO of one layer that knows the words of SEED's categories."""
    from transformers import (
        BertConfig,
        BertTokenizerFast,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    from backends.reports.objects import _seed_categories

    folder = tmp_path_factory.mktemp("grounding")
    names = sorted({word for name in _seed_categories() for word in name.split()})
    words = [*"[PAD] [UNK] [CLS] [SEP] [MASK] .".split(), *names]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    swin = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "window_size": 2}
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(**swin, out_indices=[2, 3, 4], image_size=64),
        text_config=BertConfig(vocab_size=len(words), num_hidden_layers=1, **small),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=8,
        num_feature_levels=3,
        max_text_len=256,
    )
    torch.manual_seed(0)
    model = GroundingDinoForObjectDetection(config).eval()
    model.save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 64}
    GroundingDinoProcessor(GroundingDinoImageProcessor(size=size), tokenizer).save_pretrained(
        folder
    )
    return folder


def test_a_grounding_model_looks_for_seeds_82_categories(grounding):
    detector = Detector(grounding)
    assert len(detector.categories) == 82
    assert detector.categories[:4] == ["person", "man", "woman", "bicycle"]
    scores, labels, boxes = detector.detect(pictures(1, 64)[0])
    assert len(scores) == 300 and (np.diff(scores) <= 0).all() and boxes.shape == (300, 4)
    # the score of "traffic light" is the mean over its two words
    name = detector.categories.index("traffic light")
    text = " ".join(f"{one}." for one in detector.categories)
    tokens = detector.processor.tokenizer.tokenize(text)
    at = tokens.index("traffic") + 1  # after [CLS]
    assert tokens[at] == "light"
    from PIL import Image

    picture = Image.fromarray(pictures(1, 64)[0])
    given = detector.processor(images=picture, text=text, return_tensors="pt")
    with torch.inference_mode():
        logits = detector.model(**given).logits[0].sigmoid()
    expected = logits[:, [at, at + 1]].mean(dim=1).numpy()
    for score in scores[labels == name]:
        assert np.abs(expected - score).min() < 1e-6
    assert (labels == name).any()


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Write a captioner, and a BERT of one layer that embeds sentences."""
    from transformers import BertConfig, BertModel

    root = tmp_path_factory.mktemp("told")
    save_git(root / "git")
    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    torch.manual_seed(1)
    model = BertModel(BertConfig(vocab_size=len(WORDS), num_hidden_layers=1, **small)).eval()
    model.save_pretrained(root / "words")
    (root / "words" / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (root / "words" / "tokenizer_config.json").write_text(json.dumps(settings))
    return root, model


def test_sentences_are_the_mean_of_their_words_or_the_first(told, tmp_path):
    root, model = told
    captions = Captions(root / "git", root / "words")
    said = captions.describe(pictures(3))
    assert len(said) == 3 and captions.variant == "git of git, sentences by words"
    sentences = ["a red cat", "sea"]
    ids = torch.tensor([[2, 6, 7, 8, 3], [2, 11, 3, 0, 0]])
    there = (ids > 0).float()
    with torch.inference_mode():
        states = model(ids, attention_mask=there).last_hidden_state
    mean = (states * there[..., None]).sum(1) / there.sum(1, keepdim=True)
    expected = torch.nn.functional.normalize(mean, dim=-1)
    np.testing.assert_allclose(captions.embed(sentences), expected, atol=1e-5)
    first = shutil.copytree(root / "words", tmp_path / "first")
    (first / "1_Pooling").mkdir()
    (first / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    token = torch.nn.functional.normalize(states[:, 0], dim=-1)
    np.testing.assert_allclose(Captions(root / "git", first).embed(sentences), token, atol=1e-5)


def test_seed_is_the_mean_of_its_three(told, yolos, tmp_path):
    root, _ = told
    functions = {"objects": Detector(yolos[0]), "captions": Captions(root / "git", root / "words")}
    one = DEFINITIONS["seed"]
    given = pictures(3)
    _, table, missing = measure(
        given, [given], Features(tmp_path, functions), scores=one.scores, look=one.look
    )
    table = table.set_index("id")
    assert table.loc["seed/object-f1", "value"] == pytest.approx(1)
    assert table.loc["seed/object-f1", "network"].startswith("yolos of")
    assert table.loc["seed/caption-similarity", "value"] == pytest.approx(1)
    assert set(missing) == {"seed/effnet-b1-distance", "seed/seed"}
    functions = {k: lambda images: np.ones((len(images), 36)) for k in functions}
    functions["efficientnet-b1"] = lambda images: np.random.default_rng(len(images)).random((3, 9))
    features = Features(tmp_path, functions)
    features.of = lambda name, images, look: {
        name if name != "efficientnet-b1" else "avgpool": np.asarray(functions[name](images))
    }
    _, table, _ = measure(given, [given], features, scores=one.scores, look=one.look)
    assert table.set_index("id").loc["seed/seed", "value"] == pytest.approx(1)


def test_what_is_not_given_or_does_not_fit_is_told(told, tmp_path):
    root, _ = told
    with pytest.raises(UserError, match="objects is not at hand; give a detector .*--detector F"):
        Features(tmp_path).of("objects", pictures(1))
    with pytest.raises(UserError, match="--detector .* has no config.json; give a folder as t"):
        Detector(tmp_path)
    with pytest.raises(UserError, match="--detector .*git cannot be used [(]ValueError"):
        Detector(root / "git")
    broken = shutil.copytree(root / "words", tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="--sentences .*broken cannot be used"):
        Captions(root / "git", broken)
