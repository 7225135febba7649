"""Files of torch.save with whatever a training puts in: read, and nothing of it is run."""

import argparse
import collections
import io
import pickle
import pickletools
import struct
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from explorer.inert import Placeholder, read_inert
from explorer.types import UserError

CALLED = []


def mark(*given):
    """Be called by a pickle, if anything is."""
    CALLED.append(given)
    return torch.zeros(1)


class Marks:
    """Would call `mark` when it is made, changed or filled."""

    def __init__(self, *given):
        mark(*given)

    def __setstate__(self, state):
        mark(state)

    def __setitem__(self, key, value):
        mark(key, value)

    def append(self, value):
        mark(value)

    extend = add = append


class Reduces:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


@pytest.fixture(autouse=True)
def nothing_is_called():
    CALLED.clear()
    yield
    assert CALLED == []


def saved(tmp_path, content, old=False):
    path = tmp_path / "last.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    return path


def same(a, b):
    assert a.dtype == b.dtype and a.shape == b.shape
    assert torch.equal(a.detach().nan_to_num(), b.detach().nan_to_num())


def model():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.LayerNorm(4))


@pytest.mark.parametrize("old", [False, True], ids=["zip", "stream"])
def test_a_training_with_its_optimiser_and_scheduler(tmp_path, old):
    """OneCycleLR's state holds functions, which `weights_only=True` refuses."""
    net = model()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-4, total_steps=10)
    net(torch.randn(3, 5)).sum().backward()
    optimiser.step()
    state = scheduler.state_dict() | {"anneal_func": scheduler._annealing_cos}
    config = argparse.Namespace(hidden=4096, path=Path("x"), act=partial(mark, 3))
    content = {
        "epoch": 149,
        "model_state_dict": net.state_dict(),
        "optimizer_state_dict": optimiser.state_dict(),
        "lr_scheduler": state,
        "train_losses": [np.float64(0.25), np.float32(0.5), 1.5],
        "curve": np.arange(6, dtype=np.int16).reshape(2, 3),
        "config": config,
        "act": mark,
        "half": torch.arange(4).to(torch.bfloat16),
        "more": {"set": {1, 2}, "size": torch.Size([3, 4]), "device": torch.device("cpu")},
    }
    path = saved(tmp_path, content, old)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    found, unbuilt = read_inert(path)
    assert list(found) == list(content) and found["epoch"] == 149
    assert isinstance(found["model_state_dict"], collections.OrderedDict)
    for name, tensor in net.state_dict().items():
        same(found["model_state_dict"][name], tensor)
        assert not found["model_state_dict"][name].requires_grad
    for number, moments in optimiser.state_dict()["state"].items():
        same(found["optimizer_state_dict"]["state"][number]["exp_avg"], moments["exp_avg"])
    assert found["train_losses"] == [0.25, 0.5, 1.5]
    assert np.array_equal(found["curve"], content["curve"])
    assert found["curve"].dtype == np.int16
    same(found["half"], content["half"])
    assert found["more"] == {"set": {1, 2}, "size": (3, 4), "device": "cpu"}
    config = found["config"]
    assert isinstance(config, Placeholder) and config.name == "argparse.Namespace"
    assert config.state["hidden"] == 4096 and config.state["act"].name == "functools.partial"
    assert found["act"].name.endswith("test_inert.mark")
    assert {"argparse.Namespace", "functools.partial", found["act"].name} <= set(unbuilt)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "stream"])
def test_tensors_are_as_torch_reads_them(tmp_path, old):
    base = torch.arange(24.0).reshape(4, 6)
    content = {
        "view": base[1:3, ::2],
        "turned": base.T,
        "same storage": base,
        "scalar": torch.tensor(3),
        "none": torch.empty(0, 7),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        **{str(t): torch.tensor([0, 1, 2]).to(t) for t in (torch.uint8, torch.int64, torch.bool)},
        **{str(t): torch.tensor([0.5, -2]).to(t) for t in (torch.float16, torch.float64)},
    }
    path = saved(tmp_path, content, old)
    (found, _), true = read_inert(path), torch.load(path, weights_only=True)
    assert list(found) == list(true)
    for name in true:
        same(found[name], true[name])
        assert found[name].stride() == true[name].stride()
    found["same storage"][0, 0] = 77.0  # a copy of this process; the file stays
    same(torch.load(path, weights_only=True)["same storage"], base)


def test_memory_is_that_of_what_is_looked_at(tmp_path):
    content = {"a": torch.zeros(1 << 22), "b": torch.ones(3)}
    found, _ = read_inert(saved(tmp_path, content))
    assert found["b"].tolist() == [1, 1, 1]
    assert found["a"].untyped_storage().nbytes() == 1 << 24


# --------------------------------------------------------------------------- nothing is called

ATTACKS = {
    "reduce": Reduces(mark, (1,)),
    "reduce with a state": Reduces(Marks, (), {"x": 1}),
    "list items": Reduces(list, (), None, iter([Reduces(mark, ())])),
    "state only": Reduces(object.__new__, (Marks,), {"x": 1}),
    "items": Reduces(Marks, (), None, iter([1, 2]), iter([("k", 2)])),
    "nested": [{"a": (Reduces(getattr, (Reduces(mark, ()), "__class__")),)}],
    "by a trusted name": Reduces(
        torch._tensor._rebuild_from_type_v2, (mark, torch.Tensor, (1,), {})
    ),
    "parameter": Reduces(
        torch._utils._rebuild_parameter, (Reduces(mark, ()), False, collections.OrderedDict())
    ),
    "dict of a call": Reduces(collections.defaultdict, (mark,)),
    "set state": Reduces(Marks, (), None, None, None, mark),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_no_name_of_a_file_is_called(tmp_path, name, protocol):
    path = tmp_path / "x.pth"
    torch.save({"w": torch.ones(2), "x": ATTACKS[name]}, path, pickle_protocol=protocol)
    CALLED.clear()  # making the attack may call
    found, _ = read_inert(path)
    assert found["w"].tolist() == [1, 1]


OPCODES = {
    "inst": b"(itests.explorer.test_inert\nmark\n.",
    "obj": b"(ctests.explorer.test_inert\nmark\nI1\no.",
    "newobj": b"\x80\x02ctests.explorer.test_inert\nMarks\n)\x81.",
    "newobj_ex": b"\x80\x04ctests.explorer.test_inert\nMarks\n)}\x92.",
    "build": b"\x80\x02ctests.explorer.test_inert\nMarks\n}b.",
    "build of a class": b"\x80\x02ctests.explorer.test_inert\nMarks\n)\x81}b.",
    "append": b"\x80\x02ctests.explorer.test_inert\nMarks\n)\x81K\x01a.",
    "setitem": b"\x80\x02ctests.explorer.test_inert\nMarks\n)\x81K\x01K\x02s.",
    "additems": b"\x80\x04ctests.explorer.test_inert\nMarks\n)\x81(K\x01\x90.",
    "memo": b"\x80\x02ctests.explorer.test_inert\nmark\nq\x00)R0h\x00)R.",
    "stack_global": b"\x80\x04\x8c\x19tests.explorer.test_inert\x8c\x04mark\x93)R.",
    "persistent": b"\x80\x02(ctests.explorer.test_inert\nmark\ntQ.",
    "extension": b"\x80\x02\x82\x01)R.",
    "call a text": b"\x80\x02X\x01\x00\x00\x00a)R.",
    "call a number": b"\x80\x02K\x01)R.",
    "build a list": b"\x80\x02]}b.",
    "build a text": b"\x80\x02X\x01\x00\x00\x00a}b.",
    "append to a text": b"\x80\x02X\x01\x00\x00\x00aK\x01a.",
}


def zipped(path, pickled, records=None, compressed=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compressed) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for name, content in (records or {}).items():
            archive.writestr(f"archive/data/{name}", content)
    return path


@pytest.mark.parametrize("name", OPCODES)
def test_no_opcode_calls(tmp_path, name):
    path = zipped(tmp_path / "x.pth", OPCODES[name])
    try:
        read_inert(path)
    except UserError as error:
        assert str(error).startswith(f"{path} cannot be read as a file of torch.save (")


def test_the_opcodes_tried_are_those_that_python_calls_with():
    """Every opcode that makes, changes or fetches an object by name is replaced or tried."""
    risky = {"REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "GLOBAL", "STACK_GLOBAL"}
    risky |= {"APPEND", "SETITEM", "ADDITEMS", "EXT1", "BINPERSID"}
    tried = set()
    for pickled in OPCODES.values():
        tried |= {op.name for op, _, _ in pickletools.genops(io.BytesIO(pickled))}
    assert risky <= tried


# ------------------------------------------------------------------------------ damaged, and bombs


def tensor_of(shape, stride, count, offset=0, dtype=b"FloatStorage"):
    """Return the pickle of one tensor, with whatever it declares."""
    pack = lambda n: b"\x8a\x08" + struct.pack("<q", n)  # noqa: E731
    storage = (
        b"(X\x07\x00\x00\x00storagectorch\n" + dtype + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    )
    storage += pack(count) + b"tQ"
    inside = b"(" + storage + pack(offset)
    for numbers in (shape, stride):
        inside += b"(" + b"".join(map(pack, numbers)) + b"t"
    inside += b"\x89ccollections\nOrderedDict\n)Rt"
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + inside + b"R."


def test_a_made_up_tensor_is_read_when_its_numbers_are_there(tmp_path):
    path = zipped(tmp_path / "x.pth", tensor_of([2, 3], [3, 1], 6), {"0": bytes(24)})
    assert read_inert(path)[0].shape == (2, 3)


def test_numbers_of_other_kinds_have_a_placeholder(tmp_path):
    path = zipped(
        tmp_path / "x.pth", tensor_of([2], [1], 6, dtype=b"QInt8Storage"), {"0": bytes(6)}
    )
    assert read_inert(path)[0].name == "torch._utils._rebuild_tensor_v2"


@pytest.mark.parametrize(
    ("pickled", "said"),
    [
        (tensor_of([2, 4], [4, 1], 6), r"shape \(2, 4\) has more numbers than are stored"),
        (tensor_of([2, 3], [3, 1], 6, 1), "has more numbers than are stored"),
        (tensor_of([1 << 40], [1], 6), "has more numbers than are stored"),
        (tensor_of([2, 3], [3, 1], 60), "a storage has 24 bytes, expected 240"),
        (tensor_of([-2, 3], [3, 1], 6), "shape, stride or offset is none"),
        (tensor_of([2, 3], [1], 6), "shape, stride or offset is none"),
    ],
)
def test_a_tensor_that_declares_more_than_is_there_is_refused(tmp_path, pickled, said):
    path = zipped(tmp_path / "x.pth", pickled, {"0": bytes(24)})
    with pytest.raises(UserError, match=said):
        read_inert(path)


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.",  # bytes of 2**60
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b"x.",  # a bytearray
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.",  # a frame
        b"\x80\x02X" + struct.pack("<I", 1 << 31) + b"a.",
        b"\x80\x02Nr" + struct.pack("<I", (1 << 32) - 1) + b".",  # a place of the memo
        b"(" * 200_000 + b"t" * 200_000 + b".",
        b"N" * 10,
        b"",
        b"\x80\x02}(]K\x01u.",  # a list as a key
    ],
)
def test_declared_sizes_and_depth_cost_nothing(tmp_path, pickled):
    path = zipped(tmp_path / "x.pth", pickled)
    try:
        read_inert(path)
    except UserError as error:
        assert str(error).startswith(f"{path} cannot be read as a file of torch.save (")


@pytest.mark.parametrize("old", [False, True], ids=["zip", "stream"])
def test_a_file_cut_anywhere_is_one_sentence(tmp_path, old):
    path = saved(tmp_path, {"a": torch.arange(50.0), "b": [1, "x"]}, old)
    whole = path.read_bytes()
    for end in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match="cannot be read as a file of torch.save"):
            read_inert(path)


def test_a_copy_that_was_cut_short_and_another_kind_of_file_are_named(tmp_path):
    path = saved(tmp_path, {"a": torch.arange(5000.0)})
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(UserError, match=r"\(its end is missing: the copy was cut short\)"):
        read_inert(path)
    path.write_bytes(b"x.tar" + bytes(2000))
    with pytest.raises(UserError, match=r"\(it is not what torch.save writes\)"):
        read_inert(path)


def test_a_zip_of_something_else_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("pictures/1.png", b"x")
    with pytest.raises(UserError, match="it is a zip, but none that torch.save writes"):
        read_inert(tmp_path / "x.pth")
    packed = zipped(tmp_path / "y.pth", b"N" * 1000 + b".", compressed=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="is packed, which torch.save does not do"):
        read_inert(packed)
