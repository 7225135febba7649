"""Files that others wrote: each fault is one sentence, and no declared size is believed."""

import gc
import gzip
import os
import pickle

import nibabel
import numpy as np
import pytest
import torch

from explorer import files
from explorer.types import UserError

STORED = np.arange(28, dtype=np.int16).reshape(7, 4)


class Trap:
    """Would leave a file behind if it were ever unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("mmap", [True, False])
def test_arrays_are_read_and_pickles_are_not(tmp_path, monkeypatch, mmap):
    monkeypatch.chdir(tmp_path)
    np.save("plain.npy", STORED)
    np.testing.assert_array_equal(files.read_array(tmp_path / "plain.npy", mmap=mmap), STORED)
    np.save("objects.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("objects.npy", "pickle.npy"):
        with pytest.raises(UserError, match=f"{name} holds pickled .* save it as a plain array"):
            files.read_array(tmp_path / name, mmap=mmap)
    assert not (tmp_path / "unpickled").exists()


def test_a_mapped_array_cannot_be_written(tmp_path):
    np.save(tmp_path / "plain.npy", STORED)
    with pytest.raises(ValueError, match="read-only"):
        files.read_array(tmp_path / "plain.npy")[0] = 1


def test_missing_and_cut_arrays_take_one_sentence(tmp_path):
    np.save(tmp_path / "whole.npy", np.zeros(1000))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:3000])
    for mmap in (True, False):
        with pytest.raises(UserError, match="cut.npy is damaged or cut short"):
            files.read_array(tmp_path / "cut.npy", mmap=mmap)
    with pytest.raises(UserError, match="nowhere.npy is missing; it comes from far away"):
        files.read_array(tmp_path / "nowhere.npy", "it comes from far away")


def test_what_a_library_raises_is_one_sentence(tmp_path):
    """File, expected, found, what to do; what a person said already is left alone."""
    with pytest.raises(UserError) as caught, files.guard("a.nii", "a NIfTI volume", "fetch it"):
        raise ZeroDivisionError("division\nby zero.")
    expected = "a.nii cannot be read as a NIfTI volume (division); fetch it."
    assert str(caught.value) == expected
    for error, sentence in (
        (KeyError("shape"), r"cut short \(KeyError 'shape'\); copy it again\.$"),
        (RecursionError("maximum"), "nested too deep"),
        (MemoryError(), "asks for more memory than there is"),
        (PermissionError("no"), "a.nii may not be read; give yourself the right to"),
        (IsADirectoryError("no"), "a.nii is a folder, expected a file"),
        (ValueError(""), r"\(ValueError\)"),
        (ValueError("x" * 500), r"\(x{200}\.\.\.\)"),
    ):
        with pytest.raises(UserError, match=sentence), files.guard("a.nii"):
            raise error
    with pytest.raises(UserError, match="^ours$"), files.guard("a.nii"):
        raise UserError("ours")
    with pytest.raises(ModuleNotFoundError), files.guard("a.nii"):
        raise ModuleNotFoundError("a library")
    with pytest.raises(KeyboardInterrupt), files.guard("a.nii"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("shape", [(10**6, 10**6), (2**40, 2**40), (-1, 4)])
def test_an_array_that_declares_more_than_its_file_holds_takes_no_memory(tmp_path, shape, mmap):
    with (tmp_path / "huge.npy").open("wb") as file:
        about = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, about)
        file.write(bytes(64))
    first, second = shape
    sentence = (
        rf"huge.npy is damaged or cut short \(its header declares the shape \({first}, {second}"
    )
    with pytest.raises(UserError, match=sentence):
        files.read_array(tmp_path / "huge.npy", mmap=mmap)


def test_an_archive_is_told_from_an_array(tmp_path):
    with (tmp_path / "betas.npy").open("wb") as file:
        np.savez(file, betas=STORED)
    with pytest.raises(UserError, match="is an archive of arrays .*save it with np.save"):
        files.read_array(tmp_path / "betas.npy")


def test_an_empty_array_and_a_fortran_one_are_arrays(tmp_path):
    for array in (np.zeros((0, 3)), np.asfortranarray(STORED)):
        np.save(tmp_path / "a.npy", array)
        np.testing.assert_array_equal(files.read_array(tmp_path / "a.npy"), array)


def test_texts_lose_their_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_text('{"title": "t"}', encoding="utf-8-sig")
    (tmp_path / "a.tsv").write_text("file\tcaption\na.png\tna\n", encoding="utf-8-sig")
    assert files.read_object(tmp_path / "a.json") == {"title": "t"}
    table = files.read_table(tmp_path / "a.tsv")
    assert table.to_dict("records") == [{"file": "a.png", "caption": "na"}]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            b"[" * 100_000,
            r"a.json cannot be read as JSON \(it is nested too deep\)",
        ),
        (b'{"a": ', r"a.json cannot be read as JSON \(.*\); copy it again"),
        (b"\xff\xfe", "a.json cannot be read as text in UTF-8"),
        (b"[1]", "a.json holds a list, expected an object with fields; copy it again"),
        (b"1" * 5000, r"a.json cannot be read as JSON \(Exceeds the limit"),
    ],
)
def test_what_is_no_object_is_one_sentence(tmp_path, content, sentence):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        files.read_object(tmp_path / "a.json")


def test_a_text_of_gigabytes_is_not_read(tmp_path):
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(2**36)  # a hole, which takes no place on the disk
    with pytest.raises(UserError, match="has 68,719,476,736 bytes, expected a text of at most"):
        files.read_text(tmp_path / "a.json")


@pytest.mark.parametrize(
    "content",
    [b"", b'a\tb\n"1\t2\n', b"\xff\xfe\x00", b"a\tb\n1\t2\n1\t2\t3\n", b"a\tb\n1\t2\t3\n"],
)
def test_a_table_that_is_none_is_one_sentence(tmp_path, content):
    (tmp_path / "a.tsv").write_bytes(content)
    with pytest.raises(
        UserError, match=r"a.tsv cannot be read as a tab-separated table \(.*\); copy it again"
    ):
        files.read_table(tmp_path / "a.tsv")


def test_a_table_may_have_short_rows_and_be_missing(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1\nNA,2\n")
    found = files.read_table(tmp_path / "a.csv", ",").to_dict("list")
    assert found == {"a": ["1", "NA"], "b": ["", "2"]}
    with pytest.raises(UserError, match="nowhere.csv is missing; fetch it"):
        files.read_table(tmp_path / "nowhere.csv", ",", missing="fetch it")


# --------------------------------------------------------------------------------------- volumes


def volume(path, dims=(3, 4, 5)):
    """Write a NIfTI volume whose header says ``dims``."""
    image = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    raw = bytearray(image.to_bytes())
    raw[40:48] = np.array([len(dims), *dims], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)) if path.suffix == ".gz" else bytes(raw))
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_volume_that_declares_too_much_takes_no_memory(tmp_path, name):
    path = volume(tmp_path / name)
    np.testing.assert_array_equal(
        files.volume_data(files.open_volume(path), path).ravel(), np.arange(60)
    )
    volume(path, (30_000, 30_000, 30_000))
    with pytest.raises(
        UserError,
        match=rf"{name} is damaged or cut short \(its header declares the shape \(30000, ",
    ):
        files.open_volume(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no image",
        gzip.compress(b"no image", mtime=0),
        b"\x1f\x8b\x08" + bytes(20),
    ],
    ids=["empty", "text", "packed text", "packed nothing"],
)
def test_what_is_no_volume_is_one_sentence(tmp_path, content):
    for name in ("a.nii", "a.nii.gz", "a.mgz", "a.gii"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name} cannot be read as a mask \(.*\); fetch it"):
            files.open_volume(tmp_path / name, "a mask", "fetch it")


def test_an_mgh_file_is_closed_after_its_header(tmp_path):
    """`nibabel.load` leaves it open, which is a ResourceWarning when the image goes."""
    path = tmp_path / "a.mgh"
    nibabel.save(
        nibabel.MGHImage(np.arange(6, dtype=np.int32).reshape(6, 1, 1), 2 * np.eye(4)), path
    )
    image = files.open_volume(path)
    assert image.shape == (6, 1, 1) and image.affine[0, 0] == 2
    np.testing.assert_array_equal(files.volume_data(image, path).ravel(), np.arange(6))
    del image
    gc.collect()


def test_what_a_packed_file_holds_is_bounded(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(5000)) + gzip.compress(b"end"))  # in two parts
    assert files.unpacked(path, 5003) == bytes(5000) + b"end"
    with pytest.raises(
        UserError, match="a.gz is damaged or cut short .it unpacks to more than 5,"
    ):
        files.unpacked(path, 5002)
    path.write_bytes(gzip.compress(bytes(5000))[:-9])
    with pytest.raises(UserError, match="a.gz cannot be read as a gzip file .*; fetch it"):
        files.unpacked(path, 5003, "fetch it")


def test_a_volume_cut_short_is_named_when_it_is_read(tmp_path):
    path = volume(tmp_path / "a.nii.gz")
    raw = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(raw[:400]))
    image = files.open_volume(path)
    with pytest.raises(UserError, match="a.nii.gz is damaged or cut short .*; fetch it again"):
        files.volume_data(image, path, do="fetch it again")


# --------------------------------------------------------------------------------------- tensors


def kept(tmp_path, value, **options):
    torch.save(value, tmp_path / "a.pt", **options)
    return files.read_torch(tmp_path / "a.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_lose_their_graph_and_nothing_else(tmp_path, zipped):
    values = torch.arange(6.0).reshape(2, 3)
    for value in (values, values.clone().requires_grad_(), torch.nn.Parameter(values), values[:1]):
        found = kept(tmp_path, {"x": value}, _use_new_zipfile_serialization=zipped)["x"]
        plain = files.plain_tensor(found, "x")
        np.testing.assert_array_equal(plain.numpy(), value.detach().numpy())
    half = files.plain_tensor(kept(tmp_path, values.bfloat16()), "x")
    np.testing.assert_array_equal(half.float().numpy(), values.numpy())


@pytest.mark.filterwarnings("ignore:Validating sparse tensor", "ignore:.*TypedStorage")
def test_tensors_of_another_kind_are_refused_by_name(tmp_path):
    huge = torch.zeros(1).expand(10**6, 10**6)
    for value, sentence in (
        (torch.eye(4).to_sparse(), "x is sparse, expected a plain tensor of numbers; save it den"),
        (torch.zeros(2, device="meta"), "x is without numbers .meta."),
        (torch.zeros(2, dtype=torch.complex64), "x is of complex numbers"),
        (
            huge,
            r"x has the shape \(1000000, 1000000\), 4,000,000,000,000 bytes, of which 4",
        ),
        ([1], "x is a list, expected a tensor of numbers"),
    ):
        with pytest.raises(UserError, match=f"^{sentence}"):
            files.plain_tensor(kept(tmp_path, value), "x")


def test_code_in_a_file_of_torch_never_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for zipped in (True, False):
        with pytest.raises(UserError, match=r"a.pt holds pickled .*; save plain tensors"):
            kept(tmp_path, {"x": Trap()}, _use_new_zipfile_serialization=zipped)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_no_file_of_torch_is_one_sentence(tmp_path, zipped):
    kept(tmp_path, torch.zeros(300), _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "a.pt").read_bytes()
    for content in (b"", whole[:40], whole[:-600], b"PK\x03\x04" + bytes(30), b"no tensors"):
        (tmp_path / "a.pt").write_bytes(content)
        with pytest.raises(UserError, match=r"a.pt cannot be read as a file of torch.save \("):
            files.read_torch(tmp_path / "a.pt")
