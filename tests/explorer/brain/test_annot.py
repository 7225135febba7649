"""Colours of vertices and of parcels: what .annot files of others hold, and what is refused."""

import numpy as np
import pytest

from explorer.brain.annot import read_annot
from explorer.brain.atlases import open_atlas
from explorer.types import UserError
from tests.miniatures.atlases import HALF, colour, write_raw_annot

ENTRIES = [("unknown", 25, 5, 25), ("V1", 10, 20, 30), ("V2", 40, 50, 60), ("V3", 70, 80, 90)]
CODES = [colour(*rgb) for _, *rgb in ENTRIES]


@pytest.fixture
def colours():
    """Return the colour of every vertex: 1,000 of V1, 500 of V2, 200 of V3, the rest unknown."""
    found = np.full(HALF, CODES[0])
    found[:1000], found[1000:1500], found[1500:1700] = CODES[1:]
    return found


def counts(path):
    index, table = read_annot(path)
    return {name: int((index == i).sum()) for i, (name, _) in table.items() if i >= 0}


@pytest.mark.parametrize("version", [1, 2])
def test_both_forms_of_the_table_are_read(version, colours, tmp_path):
    path = write_raw_annot(tmp_path / "a.annot", colours, ENTRIES, version=version)
    assert counts(path) == {"unknown": 0, "V1": 1000, "V2": 500, "V3": 200}
    assert read_annot(path)[1][2] == ("V2", (40, 50, 60))
    assert (read_annot(path)[0][1700:] == -1).all()


def test_a_table_may_leave_structures_out(colours, tmp_path):
    path = tmp_path / "a.annot"
    write_raw_annot(path, colours, ENTRIES, structures=[0, 7, 9, 141])
    assert counts(path) == {"unknown": 0, "V1": 1000, "V2": 500, "V3": 200}


def test_vertices_are_known_by_their_number_and_not_by_their_place(colours, tmp_path):
    order = np.random.default_rng(0).permutation(HALF)
    path = tmp_path / "a.annot"
    plain = read_annot(write_raw_annot(path, colours, ENTRIES))[0]
    shuffled = read_annot(write_raw_annot(path, colours[order], ENTRIES, numbers=order))[0]
    np.testing.assert_array_equal(shuffled, plain)
    order[5] = order[6]
    with pytest.raises(UserError, match="does not give each of its 10242 vertices one colour"):
        read_annot(write_raw_annot(path, colours, ENTRIES, numbers=order))


@pytest.mark.parametrize("other", [(41, 50, 60), (200, 200, 200), (0, 0, 1)])
def test_a_colour_that_the_table_lacks_joins_no_parcel(other, colours, tmp_path):
    colours[2000:2300] = colour(*other)
    path = write_raw_annot(tmp_path / "a.annot", colours, ENTRIES)
    said = " ".join(map(str, other))
    with pytest.raises(UserError, match=f"300 vertices have the colour {said}, which its table"):
        read_annot(path)


@pytest.mark.parametrize(
    ("code", "said"),
    [(2**24 - 1, "255 255 255"), (2**24, "number 16777216"), (-1, "number -1"), (1, "1 0 0")],
)
def test_a_colour_that_is_none_is_told_by_its_number(code, said, colours, tmp_path):
    colours[5] = code
    path = write_raw_annot(tmp_path / "a.annot", colours, ENTRIES)
    with pytest.raises(UserError, match=f"1 vertices have the colour {said}, which its table"):
        read_annot(path)


def test_a_colour_may_be_as_light_as_any(colours, tmp_path):
    colours[:1000] = colour(255, 255, 255)
    light = [ENTRIES[0], ("V1", 255, 255, 255), *ENTRIES[2:]]
    assert counts(write_raw_annot(tmp_path / "a.annot", colours, light))["V1"] == 1000


def test_a_vertex_without_any_colour_is_in_no_parcel(colours, tmp_path):
    colours[:100] = 0
    found = counts(write_raw_annot(tmp_path / "a.annot", colours, ENTRIES))
    assert found == {"unknown": 0, "V1": 900, "V2": 500, "V3": 200}


def test_a_black_parcel_cannot_be_told_from_no_parcel(colours, tmp_path):
    colours[1500:1700] = 0
    path = tmp_path / "a.annot"
    with pytest.raises(UserError, match=r"its parcel V3 is black, .* \(200 vertices have it\)"):
        read_annot(write_raw_annot(path, colours, [*ENTRIES[:3], ("V3", 0, 0, 0)]))
    black = [*ENTRIES, ("???", 0, 0, 0)]
    assert counts(write_raw_annot(path, colours, black))["V3"] == 0


def test_parcels_of_one_colour_are_refused_by_name(colours, tmp_path):
    path = tmp_path / "a.annot"
    same = [*ENTRIES[:3], ("V3", 40, 50, 60)]
    write_raw_annot(path, np.where(colours == CODES[3], CODES[2], colours), same)
    with pytest.raises(UserError, match="700 vertices have the colour 40 50 60, .* V2, V3, so no"):
        read_annot(path)
    shared = [*ENTRIES, ("???", 70, 80, 90)]
    with pytest.raises(UserError, match="200 vertices .* its table gives to V3, .*, so nobody"):
        read_annot(write_raw_annot(path, colours, shared))
    many = [*ENTRIES, *((f"A{i}", 70, 80, 90) for i in range(7))]
    with pytest.raises(UserError, match="gives to V3, A0, A1, A2 and 4 more, so nobody knows"):
        read_annot(write_raw_annot(path, colours, many))
    for few, said in ((3, "A0, A1, A2, so"), (4, "A0, A1, A2 and 1 more, so")):
        with pytest.raises(UserError, match=f"gives to V3, {said} nobody knows"):
            read_annot(write_raw_annot(path, colours, many[: 4 + few]))
    rest = [*ENTRIES, ("???", 25, 5, 25)]  # two names for the rest do no harm, nor colours unused
    rest += [("A", 1, 1, 1), ("B", 1, 1, 1)]
    assert counts(write_raw_annot(path, colours, rest))["V3"] == 200


def test_names_that_are_not_utf_8_are_latin_1(colours, tmp_path):
    path = tmp_path / "a.annot"
    latin = [*ENTRIES[:3], ("Vé".encode("latin-1"), 70, 80, 90)]
    assert counts(write_raw_annot(path, colours, latin))["Vé"] == 200
    assert counts(write_raw_annot(path, colours, [*ENTRIES[:3], ("Vé", 70, 80, 90)]))["Vé"] == 200


def test_two_parcels_of_one_name_are_refused(colours, tmp_path):
    for side in ("lh", "rh"):
        twice = [*ENTRIES[:3], ("V1", 70, 80, 90)]
        write_raw_annot(tmp_path / f"{side}.a.annot", colours, twice)
    with pytest.raises(UserError, match=r"lh.a.annot calls two parcels 'V1' \(index 1 and 3\)"):
        open_atlas(str(tmp_path / "lh.a.annot"))


def test_the_wall_of_yeo_is_no_parcel(colours, tmp_path):
    yeo = [("FreeSurfer_Defined_Medial_Wall", 25, 5, 25), *ENTRIES[1:]]
    for side in ("lh", "rh"):
        write_raw_annot(tmp_path / f"{side}.a.annot", colours, yeo)
    atlas = open_atlas(str(tmp_path / "lh.a.annot"))
    assert [label.name for label in atlas.labels] == ["V1", "V2", "V3"] * 2
    assert (atlas.vertices[1700:HALF] == -1).all()


def test_damaged_files_are_one_sentence(colours, tmp_path):
    path = tmp_path / "a.annot"
    content = write_raw_annot(path, colours, ENTRIES).read_bytes()
    table = 4 + 8 * HALF
    path.write_bytes(content[:table])
    with pytest.raises(UserError, match="has no table of colours, so nobody knows what"):
        read_annot(path)
    for empty in (bytes(4), (1).to_bytes(4, "big") + bytes(4) + bytes(4)):  # of no entries
        path.write_bytes(content[:table] + empty)
        with pytest.raises(UserError, match="has no table of colours, so nobody knows what"):
            read_annot(path)
    nameless = content[: table + 12] + bytes(4) + content[table + 20 :]  # the name of the table
    path.write_bytes(nameless)
    assert counts(path)["V3"] == 200
    huge = (2**31 - 1).to_bytes(4, "big")
    version, first = ((-n).to_bytes(4, "big", signed=True) for n in (5, 1))
    for damaged, message in {
        b"": "unpack_from requires",
        content[:50_000]: "it declares 10242 vertices and has 50000 bytes",
        huge + content[4:]: "it declares 2147483647 vertices and has",
        content[:4]: "it declares 10242 vertices and has 4 bytes",
        bytes(12): "it declares 0 vertices and has 12 bytes",
        content[:-3]: "unpack_from requires",
        content[: table + 12] + huge + content[table + 16 :]: "a name of 2147483647 bytes at byte",
        content[: table + 4] + version: "a table of version 5",
        content[: table + 4] + first: "a table of version 1",
        content.replace(b"V1\0\0\0\0\x0a", b"V1\0" + huge): "'V1' has the colour 2147483647",
    }.items():
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"a.annot cannot be read as an .annot .{message}"):
            read_annot(path)
    with pytest.raises(UserError, match="gone.annot is missing; give the path of an atlas file"):
        read_annot(tmp_path / "gone.annot")
