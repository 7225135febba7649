"""Captions: GIT's own on a miniature of it, and a table that survives an interruption."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from backends.__main__ import main
from backends.embedders.captions import Captioner, caption_stimuli, read_captions, write_captions
from backends.embedders.store import embed_stimuli
from explorer.types import EmbeddingSpace, UserError

CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a red cat by the sea on blue grass".split()
TEXT = EmbeddingSpace("words", "text", (len(WORDS),))


def save_git(folder):
    """Write a GIT of two layers with the files of its published repositories."""
    from transformers import GitConfig, GitForCausalLM

    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    eye = {**small, "num_hidden_layers": 1, "image_size": 32, "patch_size": 16}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    torch.manual_seed(3)
    sizes = {"vocab_size": len(WORDS), "num_hidden_layers": 1, **small, **ends}
    config = GitConfig(vision_config=eye, **sizes)
    model = GitForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # first weights are too small to tell pictures apart
            parameter.mul_(6)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    words = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    shown = {
        **{"image_processor_type": "CLIPImageProcessor", "processor_class": "GitProcessor"},
        **{"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
        **{"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(shown))
    return model


@pytest.fixture(scope="module")
def git(tmp_path_factory):
    folder = tmp_path_factory.mktemp("git")
    return folder, save_git(folder)


def pictures(n=5):
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(n)]


def test_captions_are_those_of_the_library(git, tmp_path):
    folder, model = git
    captioner = Captioner(tmp_path, source=folder)
    given = pictures()
    pixels = torch.from_numpy(np.stack(given)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.5, 0.4, 0.3], [0.5, 0.6, 0.7]))
    with torch.inference_mode():
        ids = model.generate(
            pixel_values=(pixels - mean) / std, max_new_tokens=40, do_sample=False
        )
    expected = [" ".join(WORDS[i] for i in row if i > 4 or i == 1) for row in ids.tolist()]
    expected = [caption.replace("[UNK]", "").strip() for caption in expected]
    found = captioner.describe(given)
    assert found == [" ".join(caption.split()) for caption in expected]
    assert len(set(found)) > 1  # they depend on the picture
    assert captioner.describe(given[3:4]) == found[3:4]


def test_missing_weights_are_one_sentence_with_the_command(tmp_path):
    with pytest.raises(UserError) as caught:
        Captioner(tmp_path)
    usual = tmp_path / "captioners" / "git"
    said = str(caught.value)
    assert "hf download microsoft/git-base-coco config.json model.safetensors" in said
    assert f"--local-dir {usual}, or give a folder or hub id with --model PATH_OR_ID" in said


# ------------------------------------------------------------------------------------- the table


class Study:
    """Three pictures of four, the second of which has a caption of its own."""

    name = "mine"
    stimuli = pd.DataFrame({"caption": ["", "by hand", None]}, index=["s1", "s2", "s,3"])

    def __init__(self):
        self.read = []

    def image(self, stimulus):
        self.read.append(stimulus)
        return np.full((4, 4, 3), len(self.read), np.uint8)


class Teller:
    """Says how bright a picture is; may be interrupted."""

    def __init__(self, patience=99):
        self.patience = patience

    def describe(self, images):
        self.patience -= len(images)
        if self.patience < 0:
            raise KeyboardInterrupt
        return [f'brightness {i[0, 0, 0]}, "as shown"' for i in images]


def test_only_what_lacks_a_caption_is_described_and_a_second_run_goes_on(tmp_path, monkeypatch):
    file, said = tmp_path / "captions.csv", []
    monkeypatch.setattr("backends.embedders.captions.SAVE_EVERY", 1)
    with pytest.raises(KeyboardInterrupt):
        caption_stimuli(Study(), Teller(patience=1), file)
    assert read_captions(file) == {"s1": 'brightness 1, "as shown"'}
    study = Study()
    assert caption_stimuli(study, Teller(), file, said.append) == 1
    assert study.read == ["s,3"] and len(said) == 1
    table = read_captions(file)
    assert table == {"s1": 'brightness 1, "as shown"', "s,3": 'brightness 1, "as shown"'}
    assert list(tmp_path.iterdir()) == [file]
    assert caption_stimuli(Study(), Teller(), file) == 0


class Words:
    """Counts known words of a caption."""

    text_spaces = (TEXT,)

    def embed_text(self, captions, space):
        rows = [[c.split().count(word) for word in WORDS] for c in captions]
        return np.array(rows, np.float32)


def test_captions_of_a_table_fill_the_gaps_and_go_before_the_data_sets_own(tmp_path):
    file = tmp_path / "captions.csv"
    write_captions(file, {"s1": "a cat", "s,3": "the sea", "stranger": "grass"})
    found = embed_stimuli(
        Study(), ["s,3", "s1", "s2"], Words(), TEXT, captions=read_captions(file)
    )
    cat, sea, by = (WORDS.index(word) for word in ("cat", "sea", "by"))
    assert found["s1"][cat] == found["s,3"][sea] == found["s2"][by] == 1
    write_captions(file, {"s2": "cat", "s1": " "})
    given = read_captions(file)
    assert embed_stimuli(Study(), ["s2"], Words(), TEXT, captions=given)["s2"][cat] == 1
    with pytest.raises(UserError, match="mine has none for 1 of 2 stimuli .first 's1'"):
        embed_stimuli(Study(), ["s1", "s2"], Words(), TEXT, captions=given)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("stimulus,text\na,b\n", "needs the columns stimulus and caption, found stimulus, text;"),
        ("", "needs the columns stimulus and caption, found nothing; python -m backends caption"),
        ("stimulus,caption\na,b\na,c\n", "has two captions of 'a'; leave one of them out"),
        (b"\xff\xfe\x00", "cannot be read as a table of captions"),
        (None, "cannot be read as a table of captions"),
    ],
)
def test_another_file_is_refused(tmp_path, text, sentence):
    file = tmp_path / "captions.csv"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=sentence):
        read_captions(file)


def test_captions_that_begin_a_formula_come_back_as_they_were(tmp_path):
    said = {"=1+1": "@a cat", "plain": "-a dog", "'=x": "a 'b'"}
    write_captions(tmp_path / "captions.csv", said)
    assert read_captions(tmp_path / "captions.csv") == said
    lines = (tmp_path / "captions.csv").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "'=1+1,'@a cat" and lines[2] == "plain,'-a dog"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot be written .*--out"):
        write_captions(tmp_path / "no" / "captions.csv", {"a": "b"})


# ----------------------------------------------------------------------------------- the commands


def call(monkeypatch, capsys, *arguments):
    """Run ``python -m backends ...`` in this process: exit code, output, errors."""
    monkeypatch.setattr(sys, "argv", ["backends", *map(str, arguments)])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    return code, *capsys.readouterr()


@pytest.fixture
def folder(tmp_path):
    """Write a plain folder of one subject and twelve pictures without captions."""
    root = tmp_path / "study"
    (root / "stimuli").mkdir(parents=True)
    (root / "sub-01").mkdir()
    names = [f"p{i:02d}" for i in range(12)]
    for name, picture in zip(names, pictures(12), strict=True):
        Image.fromarray(picture).save(root / "stimuli" / f"{name}.png")
    (root / "dataset.json").write_text(json.dumps({"title": "Mine", "licence": "CC0"}))
    files = pd.DataFrame({"file": [f"{name}.png" for name in names]})
    files.to_csv(root / "stimuli" / "stimuli.tsv", sep="\t", index=False)
    trials = pd.DataFrame({"stimulus": names, "split": ["train"] * 9 + ["test"] * 3})
    trials.to_csv(root / "sub-01" / "trials.tsv", sep="\t", index=False)
    betas = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
    np.save(root / "sub-01" / "betas.npy", betas)
    return root


def test_from_pictures_to_a_mapper_of_text_by_two_commands(
    git, folder, tmp_path, monkeypatch, capsys
):
    kept = tmp_path / "weights"
    kept.mkdir()
    (kept / "pocket-clip").symlink_to(CHECKPOINTS / "pocket-clip")
    data = ("--dataset", f"mine={folder}", "--checkpoints", kept, "--device", "cpu")
    train = ("train", "ridge", *data, "--space", "pocket-clip/text", "--no-cache")
    train = (*train, "--set", "folds=3")
    code, _, err = call(monkeypatch, capsys, *train)
    assert code == 2 and "has none for 12 of 12 stimuli" in err
    assert "python -m backends caption --dataset mine=PATH --model PATH_OR_ID" in err
    (tmp_path / "more").mkdir()
    for name, picture in zip("abc", [*pictures(14)[12:], pictures(12)[11]], strict=True):
        Image.fromarray(picture).save(tmp_path / "more" / f"{name}.png")  # c is a test picture
    describe = ("caption", *data, "--model", git[0], "--augment", tmp_path / "more")
    code, out, err = call(monkeypatch, capsys, *describe)
    table = folder / "captions.csv"
    assert code == 0 and f"14 captions  ->  {table}" in out, err
    names = [*(f"p{i:02d}" for i in range(12)), "extra:a.png", "extra:b.png"]
    assert list(read_captions(table)) == names
    code, out, err = call(monkeypatch, capsys, *train, "--captions", table)
    assert code == 0 and "sub-01  pocket-clip/text" in out, err


def test_a_data_set_without_a_folder_needs_a_name_for_the_table(monkeypatch, capsys):
    code, out, err = call(monkeypatch, capsys, "caption", "--dataset", "simulated")
    assert code == 2 and out == "" and "name a file with --out FILE.csv" in err
