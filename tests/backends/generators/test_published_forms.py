"""Published pictures in zips and lists, beside copies of what was shown, and what is declared."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backends.datasets.declared import FLAGS, declared, sentence
from backends.datasets.picture_files import listed_ids, packed, pictures_in
from backends.generators import picture_names
from explorer.choosing import default_request
from explorer.drawing import reconstruct
from explorer.naming import whose_results
from explorer.records import make_record
from explorer.request import View
from explorer.types import UserError
from tests.miniatures.published import APPEARANCE, ASCENDING, order_shown, picture, shown, write


def zipped(folder: Path, inside: str = "") -> Path:
    """Return a zip of a folder's files, and take the folder away."""
    place = folder.with_suffix(".zip")
    with zipfile.ZipFile(place, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{inside}{file.name}")
            file.unlink()
    folder.rmdir()
    return place


def with_list(folder: Path, ids: list[str], header: str = "file,image_id") -> Path:
    write(folder, [f"recon_{k:03d}.png" for k in range(10)])
    rows = [f"recon_{k:03d}.png,{one}" for k, one in enumerate(ids)]
    (folder / "image_ids.csv").write_text("\n".join([header, *reversed(rows)]) + "\n")
    return folder


@pytest.mark.parametrize("inside", ["", "final/"])
@pytest.mark.parametrize("packed_up", [True, False])
def test_a_list_says_what_each_file_is_of(open_results, tmp_path, packed_up, inside) -> None:
    folder = with_list(tmp_path / "final", [s.removeprefix("nsd-") for s in APPEARANCE])
    bench = open_results(zipped(folder, inside) if packed_up else folder)
    assert order_shown(bench, APPEARANCE) == list(range(10))


def test_a_list_that_counts_from_1_is_refused(open_results, tmp_path) -> None:
    folder = with_list(tmp_path / "final", [str(int(s[4:]) + 1) for s in APPEARANCE])
    with pytest.raises(UserError, match="image_ids.csv .*they count from 1, as NSD's 73KID"):
        open_results(folder)


def test_a_list_and_its_files_belong_together(open_results, tmp_path) -> None:
    folder = with_list(tmp_path / "final", APPEARANCE)
    Image.fromarray(picture(0)).save(folder / "more.png")
    with pytest.raises(
        UserError, match=r"has 1 pictures that image_ids.csv does not name \(first"
    ):
        open_results(folder)
    (folder / "more.png").unlink()
    (folder / "recon_004.png").unlink()
    with pytest.raises(UserError, match=r"names 1 of 10 files that are not there .*recon_004.png"):
        open_results(folder)


def test_a_list_of_other_columns_or_twice_a_file_is_refused(tmp_path) -> None:
    folder = with_list(tmp_path / "a", APPEARANCE, header="path,number")
    with pytest.raises(
        UserError, match="has the columns path, number; it needs one of file names"
    ):
        listed_ids(folder)
    (folder / "image_ids.csv").write_text("file,id\na.png,1\na.png,2\n")
    with pytest.raises(UserError, match="names the file a.png twice"):
        listed_ids(folder)
    (folder / "image_ids.csv").write_text("\ufefffile,id\nsub/a.png, 7\n")
    assert listed_ids(folder) == {"a.png": "7"}


def test_a_zip_is_read_by_member_and_its_size_is_held(tmp_path) -> None:
    place = zipped(write(tmp_path / "p", ["1.png", "0.png"]))
    with zipfile.ZipFile(place, "a") as archive:
        archive.writestr("__MACOSX/._0.png", b"nothing")
    first, second = pictures_in(place)
    assert (first.name, first.stem, second.name) == ("0.png", "0", "1.png")
    assert (first.read() == picture(1)).all() and first.size() == (12, 12)
    with zipfile.ZipFile(place, "a") as archive:
        archive.writestr("other/2.png", b"nothing")
    with pytest.raises(UserError, match="holds pictures in 2 folders"):
        pictures_in(place)
    place.write_bytes(place.read_bytes()[:-40])
    with pytest.raises(UserError, match="p.zip cannot be read as a zip at '0.png'"):
        packed(place, "0.png")


def test_names_may_have_one_text_before_the_number(open_results, tmp_path) -> None:
    folder = write(tmp_path / "enhanced", [f"img_{k}.png" for k in range(10)])
    with pytest.raises(UserError, match="img_0 is none"):
        open_results(folder)
    bench = open_results(folder, order="ascending")
    assert order_shown(bench, ASCENDING) == list(range(10))


def test_an_array_of_bytes_with_channels_last_is_read(open_results, tmp_path) -> None:
    file = tmp_path / "subj01_recons.npy"
    np.save(file, np.stack([picture(k) for k in range(10)]))
    bench = open_results(file, order="appearance")
    assert order_shown(bench, APPEARANCE) == list(range(10))


# ----------------------------------------------------------------------- copies of what was shown


def with_truths(folder: Path, fakes: Any, truths: list[str]) -> Path:
    """Write results 0 to 9 and beside each the image that its maker says was shown."""
    write(folder, [f"{k}.png" for k in range(10)])
    for k, stimulus in enumerate(truths):
        large = Image.fromarray(fakes.picture(stimulus)).resize((48, 48))
        large.save(folder / f"{k}_gt.png")
    return folder


@pytest.mark.parametrize(
    ("moved", "said"),
    [
        (lambda s: [*s[1:], s[0]], "shuffled|shifted"),
        (lambda s: s[::-1], "the copies come in the reverse order"),
        (lambda s: [*s[:3], s[4], s[3], *s[5:]], "the copies are shuffled: 8 of 10 lie where"),
    ],
)
def test_an_order_that_the_copies_contradict_is_named(
    open_results, fakes, tmp_path, moved, said
) -> None:
    folder = with_truths(tmp_path / "theirs", fakes, moved(ASCENDING))
    with pytest.raises(UserError, match=f"_gt.png shows another image than .*{said}"):
        open_results(folder, order="ascending")


def test_a_shift_by_one_is_named(open_results, fakes, tmp_path) -> None:
    folder = with_truths(tmp_path / "theirs", fakes, ASCENDING)
    for name in ("0.png", "0_gt.png"):
        (folder / name).unlink()
    sentence_ = "all are shifted by 1: each is the image 1 earlier"
    for k in range(9, 0, -1):  # 1..9 become 2..10, so that they seem to count from 1
        for end in (".png", "_gt.png"):
            (folder / f"{k}{end}").rename(folder / f"{k + 1}{end}")
    (folder / "10.png").unlink(), (folder / "10_gt.png").unlink()
    with pytest.raises(UserError, match=sentence_):
        open_results(folder, order="ascending", first="0")


def test_a_copy_is_held_again_when_its_picture_is_shown(
    open_results, fakes, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(picture_names, "COMPARED", 2)  # at once: the first and the last
    folder = with_truths(tmp_path / "theirs", fakes, ASCENDING)
    Image.fromarray(fakes.picture(ASCENDING[0])).save(folder / "6_gt.png")
    bench = open_results(folder, order="ascending")
    assert order_shown(bench, ASCENDING[:6]) == list(range(6))
    with pytest.raises(UserError, match="6_gt.png shows another image than"):
        shown(bench, ASCENDING[6])


# ------------------------------------------------------------------------------------ declarations


def test_what_is_declared_stands_under_the_picture_and_in_the_record(
    open_results, tmp_path
) -> None:
    folder = write(tmp_path / "theirs", [f"{s}.png" for s in ASCENDING])
    (folder / "provenance.json").write_text(json.dumps({"target_caption": True, "best_of": 16}))
    bench = open_results(folder, retrieval="no")
    request = default_request(
        bench.catalogue, "fake", "sub-01", stimulus=ASCENDING[0], generator="theirs"
    )
    (frame,) = [f for f in reconstruct(bench, request) if f.done]
    assert frame.note == (
        "Declared by its makers: caption of the shown image used: yes; features of the shown "
        "image used: unknown; pictures retrieved: no; best of 16 samples; settings chosen on "
        "test images: unknown."
    )
    assert make_record(bench, request, View())["notes"][0]["note"] == frame.note


def test_nothing_declared_is_unknown(tmp_path) -> None:
    flags = declared(tmp_path, {})
    assert set(flags) == set(FLAGS) and set(flags.values()) == {"unknown"}
    assert sentence(flags).startswith("Not declared by its makers, so unknown: whether")


@pytest.mark.parametrize(
    ("values", "given", "said"),
    [
        ({"captions": True}, {}, "has the field 'captions'; what is declared is target_caption"),
        ({"retrieval": "perhaps"}, {}, "retrieval is yes, no or unknown; found 'perhaps'"),
        ({}, {"best_of": "many"}, "best_of is yes, no or unknown, or a number; found 'many'"),
        ({}, {"tuned_on_test": "3"}, "tuned_on_test is yes, no or unknown; found '3'"),
    ],
)
def test_a_declaration_that_is_none_is_refused(tmp_path, values, given, said) -> None:
    (tmp_path / "provenance.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=said):
        declared(tmp_path, given)


def test_a_number_in_the_path_names_the_subject() -> None:
    people = ["subj01", "subj02", "subj05"]
    place = Path("results/reconstructions/run/subject_2/enhanced")
    assert whose_results("", people, place, "theirs") == "subj02"
    assert whose_results("", people, Path("out/sub-05/final.zip"), "theirs") == "subj05"
    for odd in ("subject_2/subject_5", "subject_3", "subset_2", "x"):
        with pytest.raises(UserError, match="say whose results they are"):
            whose_results("", people, Path(odd), "theirs")
