"""Pickles are read as data: nothing that they ask for runs, and what is not understood is refused."""

import collections
import io
import os
import pickle
import struct
import subprocess
import sys
import types
import zipfile
from functools import partial

import numpy as np
import pytest
import torch

from so3k_md.cli import main
from so3k_md.convert.unpickle import Record, read_pickle, read_torch
from so3k_md.errors import So3kError


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def archive(pickled: bytes, compression: int = zipfile.ZIP_STORED, **parts: bytes) -> bytes:
    """A file as of torch.save around any pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as target:
        for name, part in {"data.pkl": pickled, **parts}.items():
            target.writestr(f"model/{name}", part)
    return file.getvalue()


def named(module: str, name: str) -> bytes:
    """The operations that put a global on the stack."""
    return (
        b"\x8c"
        + bytes([len(module)])
        + module.encode()
        + b"\x8c"
        + bytes([len(name)])
        + name.encode()
        + b"\x93"
    )


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def refusal(data: bytes, reader=read_pickle) -> str:
    with pytest.raises(So3kError) as refused:
        reader(data, "weights.pkl")
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith("weights.pkl ")
    return message


@pytest.fixture
def mark(tmp_path):
    """A file that every attack below makes when it succeeds."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists()


ATTACKS = {
    "os.system": lambda mark: Calls(os.system, f"touch {mark}"),
    "builtins.eval": lambda mark: Calls(eval, f"open({str(mark)!r}, 'w')"),
    "builtins.exec": lambda mark: Calls(exec, f"open({str(mark)!r}, 'w')"),
    "builtins.open": lambda mark: Calls(open, str(mark), "w"),
    "builtins.getattr": lambda mark: Calls(getattr, "x", "upper"),
    "builtins.__import__": lambda mark: Calls(__import__, "antigravity"),
    "subprocess.Popen": lambda mark: Calls(subprocess.Popen, ["touch", str(mark)]),
    "functools.partial": lambda mark: Calls(partial(os.system, f"touch {mark}")),
    "torch.load": lambda mark: Calls(torch.load, str(mark)),
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", ATTACKS)
def test_functions_are_refused_by_name(name, protocol, mark):
    data = pickle.dumps({"params": ATTACKS[name](mark)}, protocol)
    last = name.split(".")[-1]
    assert f".{last}," in refusal(data)
    assert f".{last}," in refusal(archive(data), read_torch)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "path.os.system"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("collections", "OrderedDict.__class__"),
        ("numpy", "ndarray.tofile"),
        ("torch.serialization", "os.system"),
        ("so3krates_torchx", "anything"),
        ("", "eval"),
    ],
)
def test_detours_to_functions_are_refused(module, name, mark):
    call = named(module, name) + text(f"touch {mark}") + b"\x85R."
    assert f"calls {module}.{name}," in refusal(b"\x80\x04" + call)


@pytest.mark.parametrize("name", ["os.system", "Module.__init__.__globals__", "eval"])
def test_names_inside_allowed_modules_are_records_only(name, mark):
    before = set(sys.modules)
    record = read_pickle(b"\x80\x04" + named("torch.nn.modules.module", name) + text("x") + b"\x85R.", "file")
    assert isinstance(record, Record)
    assert (record.name, record.args) == (f"torch.nn.modules.module.{name}", ("x",))
    assert set(sys.modules) == before


def test_classes_cannot_be_changed():
    state = b"}" + text("__setstate__") + named("so3krates_torch.a", "B") + b"s"
    refusal(b"\x80\x04" + named("so3krates_torch.a", "A") + state + b"b.")
    refusal(b"\x80\x04" + named("so3krates_torch.a", "A") + b"N" + state + b"\x86b.")


def test_third_party_classes_are_neither_imported_nor_run(monkeypatch):
    def forbidden(*_):
        raise AssertionError("third-party code ran")

    module = types.ModuleType("so3krates_torch.things")
    thing = type("Thing", (torch.nn.Module,), {"__module__": module.__name__})
    module.Thing = thing  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "so3krates_torch", types.ModuleType("so3krates_torch"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    made = thing()
    made.weight = torch.nn.Parameter(torch.arange(6.0).view(2, 3).t())
    made.shared = made.weight
    file = io.BytesIO()
    torch.save(made, file)
    thing.__setstate__ = thing.__init__ = thing.__new__ = forbidden  # type: ignore[method-assign,assignment]
    record = read_torch(file.getvalue(), "file")
    assert record.name == "so3krates_torch.things.Thing"
    parameters = record.state["_parameters"]
    assert torch.equal(parameters["weight"], torch.arange(6.0).view(2, 3).t())
    assert parameters["weight"] is not made.weight


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_numpy_arrive_bit_for_bit(protocol):
    generator = np.random.default_rng(1)
    tree = {
        "a": {"b": generator.normal(size=(3, 4)).astype(np.float32)},
        "columns": np.asfortranarray(generator.normal(size=(2, 3, 4))),
        "scalar": np.array(2.5, dtype=np.float32),
        "whole": np.arange(3),
        "ordered": collections.OrderedDict(x=1, y=(2, None)),
    }
    read = read_pickle(pickle.dumps(tree, protocol), "file")
    assert read["ordered"] == {"x": 1, "y": (2, None)}
    for name in ("columns", "scalar", "whole"):
        assert read[name].numpy().dtype == tree[name].dtype
        np.testing.assert_array_equal(read[name].numpy(), tree[name])
    np.testing.assert_array_equal(read["a"]["b"].numpy(), tree["a"]["b"])


def test_other_arrays_are_refused():
    assert "type |O" in refusal(pickle.dumps(np.array([{}, None]), 4))
    assert "type >f4" in refusal(pickle.dumps(np.zeros(2, dtype=">f4"), 4))


def test_truncated_files_are_refused():
    data = pickle.dumps({"a": np.arange(100.0), "b": [np.zeros((3, 3))]}, 4)
    file = io.BytesIO()
    torch.save({"a": torch.arange(100.0), "b": [torch.zeros(3, 3)]}, file)
    for reader, whole in ((read_pickle, data), (read_torch, file.getvalue())):
        reader(whole, "file")
        for size in range(0, len(whole) - 1, 37):
            refusal(whole[:size], reader)


def test_damaged_numbers_are_noticed():
    file = io.BytesIO()
    torch.save({"a": torch.full((100,), 1.2345)}, file)
    bits = np.float32(1.2345).tobytes()
    assert "CRC" in refusal(file.getvalue().replace(bits * 2, bits + b"abcd"), read_torch)


@pytest.mark.parametrize("reader", [read_pickle, read_torch])
@pytest.mark.parametrize(
    "data", [b"", b"no pickle\n", b"PK\x03\x04", b"\x80\x04.", b"{}", b"\x89PNG", b"\x00" * 99]
)
def test_other_files_are_refused(data, reader):
    refusal(data, reader)


def tensor(size: str, stride: str, offset: int = 0, count: int = 4) -> bytes:
    """A pickle of one tensor over a storage of `count` numbers."""
    call = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    storage = text("0") + text("cpu") + f"I{count}\n".encode()
    shape = b"".join(
        b"(" + b"".join(f"I{n}\n".encode() for n in part.split()) + b"t" for part in (size, stride)
    )
    return call + storage + b"tQ" + f"I{offset}\n".encode() + shape + b"\x89}tR."


@pytest.mark.parametrize(
    "pickled",
    [
        tensor("5", "1"),
        tensor("2 2", "3 1"),
        tensor("2", "1", offset=3),
        tensor("2", "1", offset=-1),
        tensor("2", "-1", offset=2),
        tensor("1000000000000", "0"),
        tensor("2 2", "1"),
        tensor("2", "1", count=5),
    ],
)
def test_tensors_stay_within_their_storage(pickled):
    read = read_torch(
        archive(tensor("2 2", "1 2"), **{"data/0": np.arange(4, dtype="<f4").tobytes()}), "file"
    )
    assert read.tolist() == [[0.0, 2.0], [1.0, 3.0]]
    refusal(archive(pickled, **{"data/0": bytes(16)}), read_torch)


def test_archives_of_another_kind_are_refused():
    parts = {"data/0": bytes(16)}
    good = tensor("4", "1")
    assert "compressed" in refusal(archive(good, zipfile.ZIP_DEFLATED, **parts), read_torch)
    assert "little-endian" in refusal(archive(good, byteorder=b"big", **parts), read_torch)
    assert "no data.pkl" in refusal(archive(good, **parts).replace(b"data.pkl", b"data.txt"), read_torch)
    refusal(archive(good), read_torch)


def test_exhaustion_is_refused():
    assert "beyond its size in bytes" in refusal(b"\x80\x02}r\xff\xff\xff\x7f.")
    refusal(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    refusal(b"\x80\x02]q\x00h\x00a.")  # a list that holds itself


def test_the_command_line_says_so_in_one_line(tmp_path, mark, capsys):
    path = tmp_path / "weights.model"
    path.write_bytes(archive(pickle.dumps(Calls(os.system, f"touch {mark}"))))
    assert main(["import", str(path), "-o", str(tmp_path / "x.pt")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "system" in err
    assert "nothing of it was run" in err
    assert not (tmp_path / "x.pt").exists()
