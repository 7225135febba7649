"""LAION-fMRI: both generations of its paths, with and without pictures, its own splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest

from backends import EMBEDDERS, GENERATORS, MAPPERS
from backends.commands.doctor import examine
from backends.datasets import laion_sidecars
from backends.datasets.laion_fmri import LaionFMRI
from backends.embedders.sidecar import LaionCLIP, LaionDINOv2, LaionPEcore, LaionSigLIP2
from backends.embedders.store import embed_stimuli
from explorer.choosing import default_request
from explorer.decoding import decode, undecoded
from explorer.identity import origins_of, trace
from explorer.types import UserError
from explorer.workbench import Workbench
from tests.miniatures.laion import (
    AFFINE,
    OWN,
    SHAPE,
    SHARED,
    WHO,
    beta,
    embedding,
    labels,
    picture,
    write_laion,
    write_sidecar,
    write_splits,
)

N = len(labels(1))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_laion(tmp_path / "laion")


def opened(root: Path, **options: Any) -> LaionFMRI:
    return LaionFMRI(root, "laion", **{"cache": str(root.parent / "cache"), **options})


def inside(**_: Any) -> np.ndarray:
    """Return the voxels that are read: the mask without what session 2 does not cover."""
    mask = np.ones(SHAPE, bool)
    mask[-1] = False
    mask[0, 0, 0] = False
    return mask


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_every_beta_is_its_trials(tmp_path: Path, early: bool, packed: bool) -> None:
    study = opened(write_laion(tmp_path / "laion", early=early, packed=packed), norm="none")
    trials = study.load(WHO)
    assert trials.betas.shape == (2 * N, inside().sum())
    assert trials.table["stimulus"].tolist() == [*labels(1), *labels(2)]
    assert trials.table["session"].tolist() == [1] * N + [2] * N
    assert trials.table["run"].tolist()[:N] == [1 + i // 12 for i in range(N)]
    for row in (0, 5, N, 2 * N - 1):
        session, volume = 1 + row // N, row % N
        np.testing.assert_allclose(trials.betas[row], beta(session, volume)[inside()], rtol=1e-6)
        (origin,) = origins_of(study, trials, row)
        stored = np.asarray(nib.load(origin.file).dataobj[..., origin.row])
        np.testing.assert_allclose(stored[inside()], trials.betas[row], rtol=1e-6)
    assert trials.beta_unit == "GLMsingle beta, relative units"
    masks = study._people[WHO].masks
    assert list(masks) == (["R2gt15"] if early else ["brain"])


def test_shared_pictures_are_test_and_own_ones_training(root: Path) -> None:
    study = opened(root)
    trials = study.load(WHO)
    assert set(trials.stimuli("test")) == set(SHARED) and set(trials.stimuli("train")) == set(OWN)
    assert "Afterimage: pictures that everybody saw are test" in study.split_by
    train = trials.rows("train")
    first = train[trials.table["session"].iloc[train] == 1]
    values = np.asarray(trials.betas[first])
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(values.std(axis=0), 1, atol=1e-4)
    assert study.stimuli.at["shared_4rep_OOD_shape_dog.png", "category"] == "OOD shape"


def test_a_packed_session_is_unpacked_once_and_whole(root: Path) -> None:
    trials = opened(root, norm="none").load(WHO)
    before = np.asarray(trials.betas[:])
    files = sorted((root.parent / "cache" / "laion-fmri").iterdir())
    assert len(files) == 2 and all(f.suffix == ".npy" for f in files)
    files[0].write_bytes(files[0].read_bytes()[:200])  # cut short: made again
    again = opened(root, norm="none").load(WHO)
    np.testing.assert_array_equal(np.asarray(again.betas[:]), before)
    assert len(list((root.parent / "cache" / "laion-fmri").iterdir())) == 2


def test_pictures_are_found_by_label(root: Path) -> None:
    study = opened(root)
    for label in (SHARED[0], OWN[3]):
        np.testing.assert_array_equal(study.image(label), picture(label))
        row = int(study.ids(label)["row of images, from 0"])
        assert study.picture_origin(label).row == row
    table = root / "stimuli" / "task-images_metadata.csv"
    table.write_text(table.read_text().rpartition("never_shown")[0])
    with pytest.raises(UserError, match="has 15 pictures, task-images_metadata.csv 14 rows"):
        opened(root).image(SHARED[0])


def test_without_pictures_it_opens_and_says_how_they_are_had(tmp_path: Path) -> None:
    study = opened(write_laion(tmp_path / "laion", pictures=False))
    assert study.load(WHO).betas.shape[1] == inside().sum()
    assert (
        "The pictures are not here, so what is decoded is compared in its published" in study.note
    )
    assert "(laion-clip/image)" in study.note
    with pytest.raises(
        UserError, match="had on request. Ask for the pictures .laion-fmri request-access. and put"
    ):
        study.image(SHARED[0])
    found = trace(study, study.load(WHO), SHARED[0])
    assert "had on request" in found.picture_problem and found.picture is None
    told, well = examine(str(study.path), {"laion-fmri": LaionFMRI})
    assert well, told
    assert any("14 of 14 pictures are not here" in line for line in told)


def test_a_folder_of_pictures_named_by_label_serves_too(tmp_path: Path) -> None:
    from PIL import Image

    root = write_laion(tmp_path / "laion", pictures=False)
    (root / "stimuli" / "images").mkdir()
    name = "shared_4rep_OOD_shape_dog.png"
    Image.fromarray(picture(name)).save(root / "stimuli" / "images" / name)
    study = opened(root)
    np.testing.assert_array_equal(study.image(name), picture(name))
    assert study.without_picture(OWN[0]) and not study.without_picture(name)


# ------------------------------------------------------------------------------------- embeddings


def test_published_embeddings_are_found_by_id_and_of_unit_norm(root: Path) -> None:
    study, (space,) = opened(root), LaionCLIP.spaces
    rows = study.known_embeddings([OWN[2], SHARED[1]], space, "published")
    for row, label in zip(rows, (OWN[2], SHARED[1]), strict=True):
        expected = embedding(label, 1024).astype(np.float32)
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), rtol=1e-5)
    assert study.known_embeddings([OWN[2]], space, "other weights") is None
    found = embed_stimuli(study, [OWN[2]], LaionCLIP(root), space)
    np.testing.assert_array_equal(found[OWN[2]], rows[0])
    with pytest.raises(
        UserError, match="laion-clip/image holds published embeddings of LAION-fMRI"
    ):
        LaionCLIP(root).embed([picture(OWN[2])], space)


def test_the_spaces_of_reader_and_embedders_are_the_same() -> None:
    kinds = (LaionCLIP, LaionDINOv2, LaionPEcore, LaionSigLIP2)
    assert [cls.spaces[0] for cls in kinds] == list(laion_sidecars.SPACES.values())


def test_what_has_no_valid_embedding_is_left_out_and_told(root: Path) -> None:
    write_sidecar(root / "stimuli", "CLIP", 1024, [*SHARED, *OWN], invalid=(OWN[4],))
    study = opened(root)
    assert OWN[4] not in study.load(WHO).stimuli("train")
    assert any(
        f"1 pictures have no valid published embedding (first {OWN[4]})" in line
        for line in study.remarks()
    )
    with pytest.raises(UserError, match="no valid embedding of 1 of 2 pictures"):
        study.known_embeddings([OWN[4], OWN[3]], LaionCLIP.spaces[0], "published")


def test_embeddings_that_are_another_models_or_cut_are_refused(root: Path) -> None:
    write_sidecar(root / "stimuli", "SigLIP2", 1024, [*SHARED, *OWN])
    with pytest.raises(UserError, match="1024 numbers, expected 1152 of laion-siglip2/image"):
        opened(root).known_embeddings([OWN[0]], LaionSigLIP2.spaces[0], "published")
    file = root / "stimuli" / "task-images_desc-PEcore_embeddings.h5"
    with h5py.File(file, "w") as stored:
        stored["embedding"] = np.zeros((3, 1024), np.float16)
        stored["image_ids"] = np.array(["a", "b"], dtype=h5py.string_dtype())
    with pytest.raises(UserError, match="has 3 embeddings, 2 image_ids and 2 valid"):
        opened(root).known_embeddings([OWN[0]], LaionPEcore.spaces[0], "published")


def test_a_mapper_is_trained_and_compared_without_a_picture(tmp_path: Path) -> None:
    from backends.training.mapper_training import train_mapper
    from explorer.types import resolve

    root = write_laion(tmp_path / "laion", pictures=False)
    study, (space,) = opened(root), LaionCLIP.spaces
    trials = study.load(WHO)
    known = embed_stimuli(study, [*OWN, *SHARED], LaionCLIP(root), space)
    folder = tmp_path / "checkpoints" / "mappers" / "laion" / f"ridge-{WHO}"
    ridge = resolve(MAPPERS["ridge"])
    train_mapper("ridge", ridge, trials, {space: known}, folder, command="", licence="", folds=3)
    bench = Workbench(
        *({"laion-fmri": LaionFMRI}, EMBEDDERS, MAPPERS, {"retrieval": GENERATORS["retrieval"]}),
        checkpoints=tmp_path / "checkpoints",
        paths={"laion": root},
        options={"laion": {"cache": str(tmp_path / "cache")}},
    )
    request = default_request(bench.catalogue, "laion", WHO)
    assert not undecoded(bench, request)
    assert decode(bench, request).n == len(SHARED)


# ------------------------------------------------------------------------------------------ splits


def with_split(root: Path, name: str, train: list[str], test: list[str], pool: str = WHO) -> None:
    write_splits(root / "splits", {name: (train, test)}, pool)


def test_a_split_of_the_package_is_read_by_name_and_version(root: Path) -> None:
    with_split(root, "tau", [*OWN[:5], SHARED[0]], OWN[5:8])
    (root / "splits" / "pyproject.toml").write_text('[project]\nversion = "0.1.0"\n')
    study = opened(root, split="tau")
    trials = study.load(WHO)
    assert set(trials.stimuli("train")) == {*OWN[:5], SHARED[0]}
    assert set(trials.stimuli("test")) == set(OWN[5:8])
    assert study.split_by == (
        "the authors: tau of the package laion-fmri, version 0.1.0, each person's pool"
    )
    for row in range(len(trials.table)):
        (origin,) = origins_of(study, trials, row)
        session = int(trials.table["session"].iloc[row])
        assert labels(session)[origin.row] == trials.table["stimulus"].iloc[row]


def test_types_of_ood_are_chosen(root: Path) -> None:
    with_split(root, "ood", OWN, SHARED[3:])
    assert set(opened(root, split="ood").load(WHO).stimuli("test")) == set(SHARED[3:])
    gabor = opened(root, split="ood", ood="gabor")
    assert gabor.load(WHO).stimuli("test") == [SHARED[4]]
    assert "test of the types gabor" in gabor.split_by and "version unknown" in gabor.split_by
    assert any("which version of the package" in line for line in gabor.remarks())
    with pytest.raises(UserError, match="ood is one of cropped, gabor"):
        opened(root, split="ood", ood="dogs")
    with pytest.raises(UserError, match="chooses test pictures of split=ood; give both"):
        opened(root, ood="gabor")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"variants": []}, "needs variants\\[0\\] with train_ids and test_ids"),
        ({"variants": [{"train_ids": [OWN[0]], "test_ids": [OWN[0]]}]}, "is in train and in test"),
        (
            {"variants": [{"train_ids": ["a"], "test_ids": ["b"]}]},
            "names none of sub-03's pictures",
        ),
    ],
)
def test_a_split_that_does_not_fit_is_refused(root: Path, values: dict, sentence: str) -> None:
    with_split(root, "tau", ["a"], ["b"])
    (root / "splits" / WHO / "tau.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=sentence):
        opened(root, split="tau").load(WHO)
    with pytest.raises(UserError, match="has no split 'tau2'; choose one of tau, or shared"):
        opened(root, split="tau2").load(WHO)


def test_without_splits_they_are_asked_for(root: Path) -> None:
    with pytest.raises(UserError, match="pip install laion-fmri, or name a copy"):
        opened(root, split="random_0")
    with pytest.raises(UserError, match="has no folder shared"):
        opened(root, split="random_0", splits=str(root))


# -------------------------------------------------------------------------- what does not fit


def test_ceilings_in_percent_become_ncsnr_and_fractions_are_refused(root: Path) -> None:
    who = opened(root).load(WHO).subject
    np.testing.assert_allclose(who.ncsnr, np.sqrt(0.6 / 0.4 / 4), rtol=1e-6)  # 4 repeats
    assert set(who.maps) == {f"noise ceiling of {k}, percent" for k in ("4rep", "12rep", "Allrep")}
    file = next((root / "derivatives").rglob("*Noiseceiling4rep*"))
    nib.save(nib.Nifti1Image(np.full(SHAPE, 0.6, np.float32), AFFINE), file)
    with pytest.raises(UserError, match="noise ceilings are in percent here, found at most 0.6"):
        opened(root).load(WHO)


def table_of(root: Path) -> Path:
    return next((root / "derivatives").rglob("*ses-01*trials.tsv"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda t: t.replace("label", "image"),
            "expected label, the name of each trial's picture",
        ),
        (lambda t: t.rpartition("\n1\t")[0], f"has {N - 1} trials .*has {N} volumes"),
        (
            lambda t: t.replace("\t0\tsh", f"\t{N}\tsh").replace("\t0\tun", f"\t{N}\tun"),
            "beta_index 1",
        ),
        (lambda t: t.replace("_p04_", "_p02_"), "shows the own pictures of sub-06, not of sub-03"),
        (
            lambda t: t.replace("_p04_LAION_cluster_20_i1", "_THINGS_wire_p02"),  # one among many
            "shows the own pictures of sub-06, not of sub-03",
        ),
        (lambda t: t.replace("\n1\t", "\n7\t"), "is of session 7, by its column session"),
    ],
)
def test_a_table_of_something_else_is_refused(root: Path, change: Any, sentence: str) -> None:
    file = table_of(root)
    file.write_text(change(file.read_text()))
    with pytest.raises(UserError, match=sentence):
        opened(root).load(WHO)


def test_betas_on_another_grid_than_the_mask_are_refused(root: Path) -> None:
    file = next((root / "derivatives").rglob("*ses-02*SingletrialBetas_statmap.nii.gz"))
    image = nib.load(file)
    moved = AFFINE.copy()
    moved[0, 3] = 4
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), moved), file)
    with pytest.raises(UserError, match="lies elsewhere than the mask"):
        opened(root).load(WHO)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:-1], AFFINE), file)
    with pytest.raises(UserError, match="betas and masks of different"):
        opened(root).load(WHO)


def test_regions_choose_voxels_and_overlap(root: Path) -> None:
    half = np.zeros(SHAPE, bool)
    half[:, :2] = True
    assert opened(root, roi="V1v").load(WHO).betas.shape[1] == (half & inside()).sum()
    atlas = opened(root, roi="all").load(WHO).subject.voxels.parcellations["ROIs"]
    assert [label.name for label in atlas.labels] == ["V1v", "laion-general"]
    with pytest.raises(UserError, match="no region 'FFA1' .*it has V1v, laion-general, or all"):
        opened(root, roi="FFA1").load(WHO)
    with pytest.raises(UserError, match="has the masks brain, not 'R2gt15'"):
        opened(root, mask="R2gt15").load(WHO)


def test_what_is_lacking_or_mixed_is_told(root: Path) -> None:
    said = "\n".join(opened(root).remarks())
    assert "sub-03 lacks the sessions 3 to 30 of 1 to 30" in said
    assert "1 voxels have no value in some session and are left out" in said
    assert "12 of 14 pictures have fewer repeats than planned" in said
    assert "packed sessions are unpacked once" in said
    file = table_of(root)
    file.rename(file.with_name(file.name.replace("SingletrialBetas_trials", "GLMsingle_events")))
    said = "\n".join(opened(root).remarks())
    assert "sessions 1 have the early release's table of trials and the others the later" in said
