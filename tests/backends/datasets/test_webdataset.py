"""Tar shards: every kind of tar, and what is damaged in one."""

import io
import tarfile

import numpy as np
import pytest

from explorer.types import UserError
from tests.miniatures.mindeye1 import mindeye1, sample1, shard1, write_mindeye1


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_kind_are_read(tmp_path, style):
    root = write_mindeye1(tmp_path)
    file = root / "webdataset_avg_split" / "train" / "train_subj01_0.tar"
    deep = "a" * 60 + "/" + "b" * 60 if style == tarfile.USTAR_FORMAT else "a" * 150
    with tarfile.open(file, "w", format=style) as tar:
        tar.addfile(tarfile.TarInfo("empty") if style == tarfile.USTAR_FORMAT else folder("d"))
        for kind, content in sample1(41).items():
            member = tarfile.TarInfo(f"{deep}/sample000000000.{kind}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    assert "nsd-00041" in mindeye1(root).load("subj01").stimuli("train")


def folder(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE
    return member


def test_a_pickled_member_is_never_unpickled(tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    root = write_mindeye1(tmp_path)
    shard1(root, "train", 4, [sample1(60, coco73k__npy=stream.getvalue())])
    with pytest.raises(UserError, match="holds pickled Python objects, .* so it is not read"):
        mindeye1(root).load("subj01")


def test_a_tar_that_is_cut_short_is_refused(tmp_path):
    root = write_mindeye1(tmp_path)
    file = shard1(root, "test", 1, [sample1(61), sample1(62)])
    whole = file.read_bytes()
    last = whole.rstrip(b"\0")
    # inside a member, inside a header, and after a member, where nothing marks the end
    for length in (len(last) - 700, 1030, 512 * (-(-len(last) // 512))):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"test_subj01_1.tar is not a tar file or cut short"):
            mindeye1(root).load("subj01")
    file.write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(UserError, match="is not a tar file or cut short at byte 0"):
        mindeye1(root).load("subj01")


def test_headers_of_any_bytes_take_one_sentence(tmp_path):
    """A size in pax records that is no number, and a long name of gigabytes."""
    root = write_mindeye1(tmp_path)
    file = root / "webdataset_avg_split" / "train" / "train_subj01_0.tar"
    records = (b"22 size=not a number\n", b"13 size=\xff\xfe\n")
    for record in records:
        head = tarfile.TarInfo("pax")
        head.type, head.size = tarfile.XHDTYPE, len(record)
        member = tarfile.TarInfo("sample0.jpg")
        file.write_bytes(head.tobuf() + record.ljust(512, b"\0") + member.tobuf() + bytes(1024))
        with pytest.raises(UserError, match=r"train_subj01_0.tar( is damaged| holds no sample)"):
            mindeye1(root).load("subj01")
    head = tarfile.TarInfo("long")
    head.type, head.size = tarfile.GNUTYPE_LONGNAME, 2**32
    file.write_bytes(head.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(UserError, match="is not a tar file or cut short at byte 0"):
        mindeye1(root).load("subj01")


@pytest.mark.parametrize("header", [b"(" * 3000, b"{'shape': (9**9**2,)}", b"\0" * 60])
def test_headers_of_arrays_of_any_bytes_take_one_sentence(tmp_path, header):
    root = write_mindeye1(tmp_path)
    raw = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    shard1(root, "train", 4, [sample1(60, coco73k__npy=raw)])
    with pytest.raises(UserError, match="coco73k.npy is damaged or cut short"):
        mindeye1(root).load("subj01")
