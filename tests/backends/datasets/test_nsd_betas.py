"""NSD's sessions: which files are read, how often, and which are refused."""

import h5py
import nibabel as nib
import numpy as np
import pytest

from backends.datasets import nsd_betas
from backends.datasets.nsd import NSD
from explorer.types import UserError
from tests.miniatures.nsd import (
    AFFINE,
    SHAPE,
    betas_folder,
    ids_of,
    make,
    planted,
    roi_folder,
    save_betas,
    save_volume,
)


def test_hdf5_is_preferred_to_what_has_to_be_unpacked(tmp_path):
    root = make(tmp_path, (1,), "hdf5")
    for ending in ("nii.gz", "nii"):  # would be refused
        (betas_folder(root) / f"betas_session01.{ending}").write_bytes(b"")
    assert NSD(root, "study").load("subj01").betas[0].shape == (80,)
    (betas_folder(root) / "betas_session01.hdf5").unlink()
    with pytest.raises(UserError, match=r"betas_session01.nii is damaged or cut short"):
        NSD(root, "study").load("subj01")


def test_a_session_is_read_once_for_all_its_test_trials(tmp_path, monkeypatch):
    root = make(tmp_path, (1, 2, 3))
    opened, whole = [], nsd_betas._hdf5_block

    def counted(path, mask):
        opened.append(path.name)
        return whole(path, mask)

    monkeypatch.setattr(nsd_betas, "_hdf5_block", counted)
    monkeypatch.setattr(nsd_betas, "BLOCK_BYTES", 1)  # only the last session is kept
    trials = NSD(root, "study").load("subj01")
    assert opened == []
    averages = [trials.average(stimulus) for stimulus in trials.stimuli("test")]
    assert sorted(opened) == [f"betas_session0{s}.hdf5" for s in (1, 2, 3)]
    rows = trials.betas[trials.rows("test", trials.stimuli("test")[3])]
    np.testing.assert_allclose(averages[3], rows.mean(axis=0), rtol=1e-5)
    trials.betas[trials.rows("train")[0]]  # a training trial needs its session again
    assert len(opened) == 4


def test_another_subjects_volume_is_known_by_its_size(tmp_path):
    root = make(tmp_path, ())
    folder = betas_folder(root)
    folder.mkdir(parents=True)
    with h5py.File(folder / "betas_session01.hdf5", "w") as file:
        file.create_dataset("betas", (750, 78, 97, 79), np.int16, chunks=(750, 1, 1, 1))
    with pytest.raises(
        UserError, match=r"79 x 97 x 78 \(the size of subj05 .* ROIs of subj01 .* 6 x 7 x 5"
    ):
        NSD(root, "study").load("subj01")
    mask = np.zeros((79, 97, 78), np.float32)
    mask[5, 6, 7] = 1
    save_volume(roi_folder(root) / "nsdgeneral.nii.gz", mask)
    with pytest.raises(UserError, match=r"\(the size of subj05 at 1.8 mm\), not of subj01: two"):
        NSD(root, "study").load("subj01")


def test_the_axes_of_hdf5_are_matlabs(tmp_path):
    """Somebody's copy that h5py sees as (X, Y, Z, trials) is not taken for (trials, Z, Y, X)."""
    root = make(tmp_path)
    with h5py.File(betas_folder(root) / "betas_session01.hdf5", "w") as file:
        file["betas"] = planted(ids_of(1, 1))
    with pytest.raises(UserError, match=r"shape \(750, 5, 7, 6\) .*expected 750 trials"):
        NSD(root, "study").load("subj01")


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (
            lambda folder: save_betas(folder, 1, planted(ids_of(1, 1))[..., :749]),
            r"shape \(6, 7, 5, 749\) \(X, Y, Z, trials\), expected 750 trials",
        ),
        (
            lambda folder: save_betas(folder, 1, planted(ids_of(1, 1)).astype(np.float32)),
            "holds float32, expected int16",
        ),
        (
            lambda folder: save_betas(folder, 1, planted(ids_of(1, 1))[:, :, 1:]),
            "is 6 x 7 x 4, but the ROIs of subj01 in func1pt8mm are 6 x 7 x 5: spaces or two",
        ),
        (
            lambda folder: h5py.File(folder / "betas_session01.hdf5", "w").close(),
            "lacks the array betas",
        ),
    ],
)
def test_betas_of_another_kind_are_refused(tmp_path, write, sentence):
    root = make(tmp_path)
    write(betas_folder(root))
    with pytest.raises(UserError, match=sentence):
        NSD(root, "study").load("subj01")


def test_a_header_that_scales_is_refused(tmp_path):
    """Dividing by 300 what nibabel has already divided would be silent."""
    root = make(tmp_path, ())
    image = nib.Nifti1Image(planted(ids_of(1, 1)), AFFINE)
    image.header.set_slope_inter(1 / 300, 0)
    betas_folder(root).mkdir(parents=True)
    nib.save(image, betas_folder(root) / "betas_session01.nii.gz")
    with pytest.raises(UserError, match="is scaled by its header .* NSD's are not"):
        NSD(root, "study").load("subj01")


@pytest.mark.parametrize("ending", ["hdf5", "nii", "nii.gz"])
def test_a_session_cut_short_takes_one_sentence(tmp_path, ending):
    root = make(tmp_path, (1,), ending)
    path = betas_folder(root) / f"betas_session01.{ending}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(UserError, match=f"betas_session01.{ending} is damaged or cut short"):
        NSD(root, "study").load("subj01").betas[0]


def test_a_session_that_is_damaged_inside_takes_one_sentence(tmp_path):
    root = make(tmp_path)
    path = betas_folder(root) / "betas_session01.hdf5"
    with h5py.File(path, "w") as file:
        data = planted(ids_of(1, 1)).T
        file.create_dataset("betas", data=data, chunks=(750, 1, 1, 1), compression="gzip")
        places = [file["betas"].id.get_chunk_info(i) for i in range(210)]
    content = bytearray(path.read_bytes())
    for place in places:
        content[place.byte_offset : place.byte_offset + place.size] = bytes(place.size)
    path.write_bytes(content)
    with pytest.raises(UserError, match="betas_session01.hdf5 is damaged or cut short"):
        NSD(root, "study").load("subj01").betas[0]


@pytest.mark.parametrize("ending", ["hdf5", "nii"])
def test_betas_that_declare_more_than_there_is_are_refused(tmp_path, ending):
    root = make(tmp_path, ())
    folder = betas_folder(root)
    path = save_betas(folder, 1, planted(ids_of(1, 1)), ending)
    if ending == "hdf5":  # declared, never written: zeros
        with h5py.File(path, "w") as file:
            file.create_dataset("betas", (750, *SHAPE[::-1]), np.int16, chunks=(750, 1, 1, 1))
    else:
        path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(UserError, match=r"declares the shape \(6, 7, 5, 750\), 315,\d+ bytes"):
        NSD(root, "study").load("subj01")


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_chunks_that_were_never_written_are_not_zeros(tmp_path, compression):
    root = make(tmp_path)
    data, path = planted(ids_of(1, 1)).T, betas_folder(root) / "betas_session01.hdf5"
    with h5py.File(path, "w") as file:
        betas = file.create_dataset(
            "betas", data.shape, data.dtype, chunks=(750, 1, 1, 1), compression=compression
        )
        betas[:, :, :-1] = data[:, :, :-1]
        file["more"] = np.zeros(2**18)  # so that the file is as large as the shape declares
    missing = np.prod(data.shape[1:]) // data.shape[2]
    trials = NSD(root, "study").load("subj01")
    with pytest.raises(UserError, match=rf"at 'betas' .{missing} of 210 chunks were never writt"):
        trials.betas[0]


def test_links_and_groups_in_hdf5_take_one_sentence(tmp_path):
    root = make(tmp_path, ())
    folder = betas_folder(root)
    folder.mkdir(parents=True)
    for write in (
        lambda f: f.create_group("betas"),
        lambda f: f.__setitem__("betas", h5py.ExternalLink("nowhere.hdf5", "betas")),
        lambda f: f.__setitem__("betas", "text"),
    ):
        with h5py.File(folder / "betas_session01.hdf5", "w") as file:
            write(file)
        with pytest.raises(UserError, match="betas_session01.hdf5"):
            NSD(root, "study").load("subj01")


def test_the_last_session_of_a_subject_is_one_and_none_comes_after_it(tmp_path):
    folder = betas_folder(make(tmp_path, ()))
    folder.mkdir(parents=True)
    for session in (1, 40):
        (folder / f"betas_session{session:02d}.hdf5").touch()
    ((_, found),) = nsd_betas.find_betas(tmp_path).items()
    assert list(found["subj01"]) == [1, 40]
    for odd in (0, 41):
        (folder / f"betas_session{odd:02d}.hdf5").touch()
        with pytest.raises(UserError, match=f"session {odd}, but subj01 came for sessions 1 to 4"):
            nsd_betas.find_betas(tmp_path)
        (folder / f"betas_session{odd:02d}.hdf5").unlink()


@pytest.mark.parametrize(
    ("part", "lacking"), [("main", "NSD's own sessions"), ("imagery", "the part imagery")]
)
def test_parts_that_are_not_here_are_called_by_what_they_are(tmp_path, monkeypatch, part, lacking):
    monkeypatch.setattr(nsd_betas, "other_parts", lambda root, part: {"another": "?part=another"})
    with pytest.raises(UserError, match=f"holds another, and none of {lacking}; open what is"):
        nsd_betas.choose(tmp_path, {}, "auto", "auto", part)
