"""Numberings that are not the ones asked for: refused, told, or found out by what was shown."""

import numpy as np
import pytest
import torch
from PIL import Image

from backends.datasets.published import named_stimuli, nsd_id
from explorer.types import UserError
from tests.miniatures.published import (
    APPEARANCE,
    ASCENDING,
    NUMBERS,
    order_shown,
    picture,
    planted,
    resized,
    shown,
    write,
)

MANY = sorted(np.random.default_rng(3).choice(72_000, 300, replace=False).tolist())
MANY = sorted({*MANY, MANY[10] + 1, MANY[50] + 1})  # two pairs of neighbours fit by chance
SHOWN = [f"nsd-{number:05d}" for number in MANY]


def names(numbers) -> list[str]:
    return named_stimuli([str(n) for n in numbers], SHOWN, "ids.npy", "nsd/subj01")


def test_numbers_from_0_are_the_images():
    assert names(MANY) == SHOWN
    assert names(MANY[:3]) == SHOWN[:3]


def test_numbers_from_1_are_told_by_how_many_fit():
    with pytest.raises(UserError, match=r"\b\d of (\d+) names .* and \1 are if one is subtracted"):
        names([n + 1 for n in MANY])
    with pytest.raises(UserError, match="they count from 1, as NSD's 73KID does"):
        named_stimuli([f"nsd-{n + 1:05d}" for n in MANY], SHOWN, "folder", "nsd/subj01")


def test_neighbours_from_1_are_refused_although_nearly_all_fit():
    dense = [f"nsd-{n:05d}" for n in range(100)]
    with pytest.raises(UserError, match="99 of 100 names .* and 100 are if one is subtracted"):
        named_stimuli([str(n + 1) for n in range(100)], dense, "ids", "nsd/subj01")


def test_ids_that_fit_by_chance_are_refused():
    coco = [MANY[7], *range(100_000, 100_300)]
    with pytest.raises(UserError, match=r"1 of 301 names in ids.npy .* may be chance .*COCO's"):
        names(coco)


def test_more_results_than_test_images_are_read_and_told(open_results, tmp_path):
    further = [*NUMBERS, *range(60_000, 60_030)]
    rows = torch.cat([planted(), planted().repeat(3, 1, 1, 1)])
    torch.save(rows, tmp_path / "pictures.pt")
    np.save(tmp_path / "ids.npy", np.array(further, dtype=np.float64))
    bench = open_results(tmp_path / "pictures.pt", order=str(tmp_path / "ids.npy"))
    assert order_shown(bench) == list(range(10))
    told = " ".join(bench.catalogue.problems())
    assert "leaves out 30 of 40 results, which are of no test image (first nsd-60000)" in told


def test_nsds_own_names_count_from_1():
    assert nsd_id("shared0001_nsd02951") == "nsd-02950"
    assert (nsd_id("2950"), nsd_id("73000"), nsd_id("\u0663")) == ("nsd-02950", "", "")


def test_a_byte_order_mark_is_no_part_of_an_id(open_results, tmp_path):
    torch.save(planted(), tmp_path / "pictures.pt")
    lines = "\r\n".join(map(str, NUMBERS)).encode()
    (tmp_path / "ids.txt").write_bytes(b"\xef\xbb\xbf" + lines)
    bench = open_results(tmp_path / "pictures.pt", order=str(tmp_path / "ids.txt"))
    assert order_shown(bench) == list(range(10))


# ----------------------------------------------------------------------------------------- folders


def test_a_part_that_may_count_from_0_or_1_asks(open_results, tmp_path):
    folder = write(tmp_path / "theirs", ["3.png", "6.png", "9.png"])
    with pytest.raises(UserError, match=r"no picture 0 \(the lowest is 3\).*[?]first=0 or [?]fir"):
        open_results(folder, order="ascending")
    bench = open_results(folder, order="ascending", first="1")
    assert order_shown(bench, [ASCENDING[i] for i in (2, 5, 8)]) == [0, 1, 2]
    bench = open_results(folder, order="ascending", first="0")
    assert order_shown(bench, [ASCENDING[i] for i in (3, 6, 9)]) == [0, 1, 2]
    with pytest.raises(UserError, match="first is the number of the first picture .* found '2'"):
        open_results(folder, order="ascending", first="2")


def test_all_numbers_from_1_open_when_it_is_said(open_results, tmp_path):
    folder = write(tmp_path / "theirs", [f"{k + 1}.png" for k in range(10)])
    with pytest.raises(UserError, match="no picture 0"):
        open_results(folder, order="ascending")
    bench = open_results(folder, order="ascending", first="1")
    assert order_shown(bench, ASCENDING) == list(range(10))
    with pytest.raises(UserError, match="has a picture 10, and .* 0 to 9; choose another order"):
        open_results(folder, order="ascending", first="0")


@pytest.mark.parametrize("other", ["00000.png", "0.jpg"])
def test_two_files_of_one_number_are_refused(open_results, tmp_path, other):
    folder = write(tmp_path / "theirs", [f"{k}.png" for k in range(10)])
    Image.fromarray(picture(3)).save(folder / other)
    with pytest.raises(UserError, match=f"two pictures for 0: .*{other}|two pictures for 0: 0"):
        open_results(folder, order="ascending")


@pytest.mark.parametrize("name", ["{}.png", "nsd-{:05d}.png"])
def test_pictures_named_from_1_are_refused(open_results, tmp_path, name):
    names = [name.format(n + 1) for n in sorted(NUMBERS)]
    names[-1] = name.format(sorted(NUMBERS)[0])  # one fits
    with pytest.raises(UserError, match="they count from 1, as NSD's 73KID does"):
        open_results(write(tmp_path / "theirs", names))


def with_truths(folder, fakes, stimuli):
    """Write result k and, beside it, a copy of what was shown, as DynaDiff names them."""
    write(folder, [f"{k}.png" for k in range(10)])
    for k, stimulus in enumerate(stimuli):
        copy = Image.fromarray(fakes.picture(stimulus)).resize((57, 57), Image.Resampling.BICUBIC)
        copy.save(folder / f"{k}_gt.png")
    return folder


def test_copies_of_what_was_shown_say_whether_the_order_is_right(open_results, fakes, tmp_path):
    folder = with_truths(tmp_path / "theirs", fakes, APPEARANCE)
    bench = open_results(folder, order="appearance")
    assert order_shown(bench) == list(range(10))
    told = " ".join(bench.catalogue.problems())
    assert "leaves out" not in told  # copies are no results
    with pytest.raises(UserError, match=r"_gt.png shows another image than nsd-\d+, .* ascending"):
        open_results(folder, order="ascending")


def test_images_beside_an_array_say_whether_the_order_is_right(open_results, fakes, tmp_path):
    torch.save(planted(), tmp_path / "a_all_recons.pt")
    torch.save(resized(fakes, ASCENDING), tmp_path / "all_images.pt")
    assert order_shown(open_results(tmp_path / "a_all_recons.pt"), ASCENDING) == list(range(10))
    with pytest.raises(UserError, match=r"image \d \(from 0\) of .*all_images.pt shows another"):
        open_results(tmp_path / "a_all_recons.pt", order="appearance")


# ------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize("change", [lambda t: t.requires_grad_(), torch.nn.Parameter])
def test_tensors_with_a_graph_are_numbers_too(open_results, tmp_path, change):
    torch.save(change(planted()), tmp_path / "a_all_recons.pt")
    assert order_shown(open_results(tmp_path / "a_all_recons.pt"), ASCENDING) == list(range(10))


def test_whole_numbers_of_any_size_are_pictures(open_results, tmp_path):
    whole = np.stack([picture(k) for k in range(10)])
    for kind in (np.int64, np.uint16, np.int16):
        np.save(tmp_path / "pictures.npy", whole.astype(kind))
        bench = open_results(tmp_path / "pictures.npy", order="ascending")
        assert order_shown(bench, ASCENDING) == list(range(10))
    np.save(tmp_path / "pictures.npy", whole.astype(np.uint16) * 257)
    with pytest.raises(UserError, match=r"whole numbers \(uint16\) from .* expected 0 to 255"):
        open_results(tmp_path / "pictures.npy", order="ascending")


def test_one_picture_without_a_negative_value_does_not_hide_the_range(open_results, tmp_path):
    rows = planted() * 2 - 1
    rows[4] = rows[4].abs()  # was to be black to white, and would be shown too light
    torch.save(rows, tmp_path / "a_all_recons.pt")
    with pytest.raises(UserError, match=r"values from -0.84\S* to .*expected 0 to 1"):
        shown(open_results(tmp_path / "a_all_recons.pt"), ASCENDING[4])


def test_declared_shapes_are_held_against_the_file(open_results, tmp_path):
    np.save(tmp_path / "rows.npy", planted().numpy())
    whole = (tmp_path / "rows.npy").read_bytes()
    (tmp_path / "rows.npy").write_bytes(whole.replace(b"(10, 3,", b"(9999999, 3,")[: len(whole)])
    with pytest.raises(UserError, match="rows.npy (is damaged|cannot be read)"):
        open_results(tmp_path / "rows.npy", order="ascending")
    torch.save(torch.zeros(1).expand(10, 3, 12, 12), tmp_path / "a_all_recons.pt")
    with pytest.raises(UserError, match="4,320|17,280 bytes, of which 4 are stored"):
        open_results(tmp_path / "a_all_recons.pt")


def test_rows_that_are_no_prediction_are_counted_and_told(open_results, tmp_path):
    rows = np.ones((10, 8), np.float32)
    rows[4, 2] = rows[7, 0] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    given = {"order": "ascending", "space": "fake-clip/image"}
    bench = open_results(tmp_path / "rows.npy", **given)
    (told,) = [p for p in bench.catalogue.problems() if "not finite" in p]
    assert (
        f"2 of 10 rows hold values that are not finite (first row 4, from 0, of {ASCENDING[4]})"
        in told
    )
    bfloat = torch.ones(10, 8).bfloat16().view(torch.int16).numpy().view("V2")
    np.save(tmp_path / "rows.npy", bfloat)
    with pytest.raises(UserError, match="as numpy writes bfloat16; save it as float32"):
        open_results(tmp_path / "rows.npy", **given)
